"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere, nothing on other
ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vdvae_lr.processes.streams import OutputLostError


class Display:
    """Use as a context; `say` prints a line, `advance` moves the bar.

    Attributes:
        lost: why standard output takes no more, once it did not: the run shall save and end. None while it is sound.
    """

    def __init__(self, *, shown: bool, done: int, iterations: int, bar: bool = True) -> None:
        self._console = Console(quiet=not shown, soft_wrap=True, highlight=False, markup=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and bar and self._console.file.isatty()),  # FORCE_COLOR makes no file a terminal
        )
        self.lost: OutputLostError | None = None
        self._task = self._progress.add_task("training", total=iterations, completed=done)

    def __enter__(self) -> "Display":
        with self._noticing_loss():
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._noticing_loss():
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line; on a terminal it appears above the bar."""
        with self._noticing_loss():
            self._console.print(line)
            self._console.file.flush()  # a log file or a pipe would else stay empty for hours

    def advance(self, iteration: int, doing: str = "training") -> None:
        """Show that `iteration` iterations are done, and what goes on."""
        self._progress.update(self._task, completed=iteration, description=doing)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except OutputLostError as error:
            self.lost = error
