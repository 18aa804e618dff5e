"""What a person sees while a run goes on: a progress bar, lines, speed and time left, and whether other work slows it.

On a terminal there is a bar; elsewhere there are plain lines; only the main process shows anything.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vdvae_lr.processes.streams import OutputLostError

_SPEED_STEPS = 100
_COUNTER = Path("/proc/thread-self/schedstat")
_MUCH_WAITING = 0.2  # share of the time; 0.0003 was seen on a quiet machine, 0.4 beside one busy process


class Display:
    """Use as a context; `say` prints a line, `advance` moves the bar.

    Attributes:
        lost: why standard output accepts no more, so that the run can save and end; None while it works.
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
            self._console.file.flush()  # otherwise a log file or a pipe stays empty for hours

    def advance(self, iteration: int, doing: str = "training") -> None:
        """Show that `iteration` iterations are done, and what goes on."""
        self._progress.update(self._task, completed=iteration, description=doing)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except OutputLostError as error:
            self.lost = error


class Speedometer:
    """Images per second over the last steps, and the time that the rest of the run takes at that speed.

    The first steps are slow (compilation, cold caches, readers that start), and other work on the machine comes and
    goes. A mean over the whole run would be wrong for hours.

    Args:
        iterations: length of the whole run.
        global_batch: images of one iteration.
        now: the clock, in seconds.
    """

    def __init__(self, iterations: int, global_batch: int, now: Callable[[], float] = time.monotonic) -> None:
        self._iterations = iterations
        self._global_batch = global_batch
        self._now = now
        self._paused_s = 0.0
        self._ends: deque[float] = deque([now()], maxlen=_SPEED_STEPS + 1)  # of the last steps, without pauses

    def step(self) -> None:
        """Note that an iteration has ended."""
        self._ends.append(self._now() - self._paused_s)

    def exclude(self, seconds: float) -> None:
        """Leave out time that was not training (evaluation, pictures, saving)."""
        self._paused_s += seconds

    def images_per_second(self) -> float:
        """The speed over the last steps; NaN before the first step."""
        seconds = self._ends[-1] - self._ends[0]
        return (len(self._ends) - 1) * self._global_batch / seconds if seconds > 0 else math.nan

    def time_left(self, iteration: int) -> timedelta:
        """The time left after `iteration` iterations, without evaluations that are still to come."""
        speed = self.images_per_second()
        seconds = (self._iterations - iteration) * self._global_batch / speed if speed > 0 else 0.0
        return timedelta(seconds=round(seconds))


class CoreWatch:
    """Notices other work on the cores. It slows a process with several threads more than its share of the cores.

    A step waits at hundreds of places for its slowest thread, and nearly always one thread is waiting for a core.

    Args:
        threads: threads with which this process computes on the CPU; 1 if it computes elsewhere.
        now: the clock, in seconds.
        waited_s: seconds for which the main thread was ready to run and had no core; None if the system does not say.
    """

    def __init__(
        self,
        threads: int,
        now: Callable[[], float] = time.monotonic,
        waited_s: Callable[[], float | None] | None = None,
    ) -> None:
        self._threads = threads
        self._now = now
        self._waited_s = waited_s or _waited_for_a_core_s
        self._since = now(), self._waited_s()

    def notice(self) -> str:
        """A sentence, once, if other work took much of the time since the last call; else an empty text."""
        (start, waited_then), end, waited_now = self._since, self._now(), self._waited_s()
        self._since = end, waited_now
        if self._threads == 1 or waited_then is None or waited_now is None or end <= start:
            return ""
        share = (waited_now - waited_then) / (end - start)
        if share < _MUCH_WAITING:
            return ""
        threads, self._threads = self._threads, 1  # so that it is said once
        return (
            f"Other work is using this machine's cores: this run waited for a core {share:.0%} of the time. Its "
            f"{threads} threads then wait for each other as well; a small model runs faster with OMP_NUM_THREADS=1."
        )


def _waited_for_a_core_s() -> float | None:
    """Seconds that this thread waited for a core, as Linux counts them; None on other systems."""
    try:
        return int(_COUNTER.read_text(encoding="utf-8").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
