"""How fast a run goes, how long the rest takes, and whether other work on the machine slows it down."""

import math
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

_SPEED_STEPS = 100
_COUNTER = Path("/proc/thread-self/schedstat")
_MUCH = 0.2  # of the time; 0.0003 was seen on a quiet machine, 0.4 beside one busy process


class Speedometer:
    """Images a second over the last steps, and the time that the rest of the run takes at that speed.

    The first steps are slow (compilation, cold caches, readers that start), and a machine's other work comes and goes;
    a mean over the whole run would carry them along for hours.

    Args:
        iterations: of the whole run.
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
        """Over the last steps; NaN before the first one."""
        seconds = self._ends[-1] - self._ends[0]
        return (len(self._ends) - 1) * self._global_batch / seconds if seconds > 0 else math.nan

    def time_left(self, iteration: int) -> timedelta:
        """After `iteration` iterations, without what evaluations still to come will take."""
        speed = self.images_per_second()
        seconds = (self._iterations - iteration) * self._global_batch / speed if speed > 0 else 0.0
        return timedelta(seconds=round(seconds))


class CoreWatch:
    """Notices other work on the cores, which slows several threads down more than its share of the cores explains.

    A step waits at hundreds of places for its slowest thread, and nearly always one of them is waiting for a core.

    Args:
        threads: with which this process computes on the CPU; 1 where it computes elsewhere.
        now: the clock, in seconds.
        waited_s: seconds for which the main thread was ready to run and had no core; None where nobody counts.
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
        """A sentence, once, where other work took much of the time since the last call; else an empty text."""
        (start, waited_then), end, waited_now = self._since, self._now(), self._waited_s()
        self._since = end, waited_now
        if self._threads == 1 or waited_then is None or waited_now is None or end <= start:
            return ""
        share = (waited_now - waited_then) / (end - start)
        if share < _MUCH:
            return ""
        threads, self._threads = self._threads, 1  # said once
        return (
            f"Other work is using this machine's cores: this run waited for a core {share:.0%} of the time. Its "
            f"{threads} threads then wait for each other as well; a small model runs faster with OMP_NUM_THREADS=1."
        )


def _waited_for_a_core_s() -> float | None:
    """Of this thread, as Linux counts it; None elsewhere."""
    try:
        return int(_COUNTER.read_text(encoding="utf-8").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
