"""The start of `train.py`, `vdvae-lr` and `python -m vdvae_lr`: from here on, Ctrl-C ends the program with one word.

To import torch takes seconds. Code that is being imported may catch KeyboardInterrupt and go on half loaded.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vdvae_lr.errors import EXIT_INTERRUPTED


@contextmanager
def leaving_at_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C ends the process at once, without an exception. Use it for imports: nothing is lost in them."""
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
