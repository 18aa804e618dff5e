"""How far a long measurement is: a bar in a terminal, one line a loop elsewhere, nothing but on the main process."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

_PLAIN_WIDTH = 160  # a file or a pipe has no width; wide enough that no cell of a table is cut


def plain_console(speaks: bool = True) -> Console:
    """A console that takes text as it is; one that does not speak prints nothing."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(width=width, markup=False, highlight=False, quiet=not speaks)


class ConsoleTracker:
    """Wraps a loop: `tracker(items, total, what)` yields the items and shows how far they are."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        if self._console.quiet:
            return items
        if self._console.is_terminal:
            return track(items, what, total=total, console=self._console, transient=True)
        self._console.print(what)
        return items
