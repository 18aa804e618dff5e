"""A long loop says how far it is where there is no terminal."""

import io
from collections.abc import Iterator

from rich.console import Console

from vdvae_lr.cli.shared.progress import ConsoleTracker


def printed_by(seconds_per_item: list[float]) -> list[str]:
    """What a loop over such items prints into a file."""
    seconds = 0.0

    def items() -> Iterator[float]:
        nonlocal seconds
        for each in seconds_per_item:
            yield each
            seconds += each

    console = Console(file=io.StringIO(), width=160)
    tracker = ConsoleTracker(console, now=lambda: seconds)
    assert list(tracker(items(), len(seconds_per_item), "images")) == seconds_per_item
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_short_loop_is_one_line() -> None:
    assert printed_by([]) == printed_by([29.0]) == printed_by([5.0] * 6) == ["images"]


def test_a_long_loop_says_twice_a_minute_what_is_left() -> None:
    lines = printed_by([10.0] * 3600)
    assert lines[:3] == ["images", "images: 3 of 3,600 · left 9:59:30", "images: 6 of 3,600 · left 9:59:00"]
    assert lines[-1] == "images: 3,597 of 3,600 · left 0:00:30"
    assert len(lines) == 1200


def test_items_slower_than_that_are_each_said() -> None:
    assert printed_by([90.0] * 3) == ["images", "images: 1 of 3 · left 0:03:00", "images: 2 of 3 · left 0:01:30"]


def test_a_console_that_does_not_speak_costs_nothing() -> None:
    items = [1, 2]
    assert ConsoleTracker(Console(quiet=True))(items, 2, "images") is items
