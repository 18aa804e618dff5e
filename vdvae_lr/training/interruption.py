"""Ending a run from outside without losing it: Ctrl-C, SIGTERM and SIGUSR1 finish the step, save, and leave."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Remembers the first signal; a second one acts at once, as it would without us."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def listening_for_signals() -> Iterator[StopRequest]:
    """Inside, the signals set the yielded request instead of ending the process."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def remember(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in _SIGNALS:
        signal.signal(number, remember)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
