"""How far a tensor is from another, for tests."""

import torch
from torch import Tensor


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest error as a share of the largest magnitude expected; NaN where anything is NaN, so compare with `<=`."""
    value, expected = value.detach().double(), torch.as_tensor(expected).double()
    assert value.shape == expected.shape, (value.shape, expected.shape)
    scale = expected.abs().max().item()
    return (value - expected).abs().max().item() / (scale or 1.0)
