"""Where `train.py`, `vdvae-lr` and `python -m vdvae_lr` start: Ctrl-C ends them with one word from here on.

Importing torch takes seconds, and what is imported then may catch KeyboardInterrupt and go on, half loaded.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vdvae_lr.errors import EXIT_INTERRUPTED


@contextmanager
def leaving_at_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once, without an exception; for imports, in which nothing can be lost."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # it is ignored in the background, or somebody listens already
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def train() -> int:
    """`train.py`; returns the exit code."""
    with leaving_at_ctrl_c():
        from vdvae_lr.cli import main
    return main.train()


def vdvae_lr() -> int:
    """`vdvae-lr`; returns the exit code."""
    with leaving_at_ctrl_c():
        from vdvae_lr.cli import main
    return main.main()
