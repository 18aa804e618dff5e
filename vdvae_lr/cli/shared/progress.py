"""Progress of long loops: a bar in a terminal, lines elsewhere. Only the main process shows it."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

_PLAIN_WIDTH = 160  # characters; a file or a pipe has no width, and no cell of a table may be cut
_SILENCE_S = 30.0


def plain_console(speaks: bool = True) -> Console:
    """A console that prints text without markup; if `speaks` is False, it prints nothing."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(width=width, markup=False, highlight=False, quiet=not speaks)


class ConsoleTracker:
    """Wraps a loop: `tracker(items, total, what)` yields the items and shows the progress.

    Args:
        console: where it is shown.
        now: the clock, in seconds.
    """

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now = now

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        if self._console.quiet:
            return items
        if self._console.is_terminal:
            return track(items, what, total=total, console=self._console, transient=True)
        self._console.print(what)
        return self._said(items, total, what)

    def _said(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """A line twice a minute: how far the loop is, and the time left at its mean speed so far."""
        start = last = self._now()
        for done, item in enumerate(items):
            now = self._now()
            if done and now - last >= _SILENCE_S:
                left = timedelta(seconds=round((now - start) / done * (total - done)))
                self._console.print(f"{what}: {done:,} of {total:,} · left {left}")
                last = now
            yield item
