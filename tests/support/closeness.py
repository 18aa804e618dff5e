"""The distance between two tensors, for tests."""

import torch
from torch import Tensor


def relative_error(value: Tensor, expected: Tensor) -> float:
    """The largest error divided by the largest expected magnitude. It is NaN if any value is, so compare with `<=`."""
    value, expected = value.detach().double(), torch.as_tensor(expected).double()
    assert value.shape == expected.shape, (value.shape, expected.shape)
    scale = expected.abs().max().item()
    return (value - expected).abs().max().item() / (scale or 1.0)
