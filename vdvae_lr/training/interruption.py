"""Ending a run from outside without losing it: SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP let it finish the step,
save, and end.

SLURM sends SIGUSR1 ahead of a time limit (`--signal=USR1@300`) and SIGTERM at a preemption. The system sends SIGHUP
when a terminal is closed; under nohup it stays ignored. A run whose output nobody reads ends as if SIGPIPE had come.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vdvae_lr.errors import EXIT_RUN_AGAIN
from vdvae_lr.processes.world import World

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_NOT_TO_BE_REPEATED = (signal.SIGINT, signal.SIGPIPE)  # a person wanted the run to end; no batch system should requeue


class StopRequest:
    """Remembers the first signal. A second signal acts at once, as it would without this program."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def agreed(self, world: World) -> bool:
        """Whether any process was told to stop. All processes must ask; afterwards all know the signal."""
        number = world.highest(self.signal or 0)
        if number:
            self.signal = signal.Signals(number)
        return number > 0

    @property
    def exit_code(self) -> int:
        """0 without a signal; 128 + its number for SIGINT (Ctrl-C) and SIGPIPE (nobody reads the output); else
        EXIT_RUN_AGAIN.
        """
        if self.signal is None:
            return 0
        return 128 + self.signal if self.signal in _NOT_TO_BE_REPEATED else EXIT_RUN_AGAIN


@contextmanager
def listening_for_signals() -> Iterator[StopRequest]:
    """Inside, the first signal sets the yielded request instead of ending the process."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        restore()

    for number in before:
        signal.signal(number, remember)
    try:
        yield request
    finally:
        restore()


@contextmanager
def ending_at_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C ends the program at once: there is no step to finish yet, and nothing to save."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
