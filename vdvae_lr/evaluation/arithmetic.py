"""The arithmetic that measurements are made in: float32, on CUDA too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """No TF32, to which torch by itself lets CUDA round convolutions; published numbers are float32's."""
    previous = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = previous
