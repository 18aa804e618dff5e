"""Weights for the Inception network that come from a formula, and images for it, the same with every version of torch.

The numbers of a test were computed by torch-fidelity with these weights.
"""

import math

import torch
from torch import Tensor, nn


def made_state(network: nn.Module) -> dict[str, Tensor]:
    """A state dict of float32 numbers between fixed limits, with which features neither vanish nor explode."""
    return {name: _made(name, tensor, number) for number, (name, tensor) in enumerate(network.state_dict().items())}


def _made(name: str, like: Tensor, number: int) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(like)
    waves = torch.sin(torch.arange(like.numel(), dtype=torch.float64) * 1.7 + number).reshape(like.shape)
    if name.endswith("conv.weight"):
        waves = waves * math.sqrt(4 / math.prod(like.shape[1:]))
    elif name.endswith(("bn.weight", "running_var")):
        waves = 1 + waves / 4
    else:
        waves = waves / 4
    return waves.float()


def made_pixels() -> Tensor:
    """Two images (2, 3, 20, 31) uint8."""
    return (torch.arange(2 * 3 * 20 * 31) * 37 % 251).to(torch.uint8).reshape(2, 3, 20, 31)
