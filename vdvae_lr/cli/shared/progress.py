"""Progress of long loops: a bar in a terminal, one line for each loop elsewhere. Only the main process shows it."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

_PLAIN_WIDTH = 160  # characters; a file or a pipe has no width, and no cell of a table may be cut


def plain_console(speaks: bool = True) -> Console:
    """A console that prints text without markup; if `speaks` is False, it prints nothing."""
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(width=width, markup=False, highlight=False, quiet=not speaks)


class ConsoleTracker:
    """Wraps a loop: `tracker(items, total, what)` yields the items and shows the progress."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        if self._console.quiet:
            return items
        if self._console.is_terminal:
            return track(items, what, total=total, console=self._console, transient=True)
        self._console.print(what)
        return items
