"""The number format of a computation: autocast, at least float32, and float32 without TF32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """`values` in at least float32: KL, log-probabilities and sums must not be computed in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def compute_dtype(values: Tensor) -> torch.dtype:
    """The type that a convolution of `values` returns: autocast's if it is on, else that of `values`."""
    device = values.device.type
    autocasts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # meta tensors have none
    return torch.get_autocast_dtype(device) if autocasts else values.dtype


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which convolutions keep the type of their inputs. Some devices (meta) have no autocast."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """A context without TF32, to which torch rounds CUDA convolutions by default. Published numbers are in float32."""
    previous = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = previous
