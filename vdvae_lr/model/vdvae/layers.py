"""The convolutions that encoder and decoder are built from, and the recomputation of activations.

Shapes: B batch, C width, M bottleneck width, H W resolution.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vdvae_lr.model.precision import compute_dtype

T = TypeVar("T")


def convolution(in_channels: int, out_channels: int, kernel_size: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """A same-size convolution with torch's default weights and zero biases (the published initialisation)."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def scale_weights(layer: nn.Conv2d, factor: float) -> None:
    """Multiply a layer's initial weights by `factor`: √(1/number of blocks) if the outputs of blocks add up, 0 if a
    block shall add nothing at first.
    """
    with torch.no_grad():
        layer.weight.mul_(factor)


class Layer(NamedTuple):
    """A same-size convolution with weights that belong to other layers.

    With groups, each group of outputs reads only its own group of inputs.
    """

    weight: Tensor
    bias: Tensor
    groups: int = 1

    def __call__(self, features: Tensor) -> Tensor:
        """(B, in, H, W) → (B, out, H, W)."""
        padding = self.weight.shape[-1] // 2
        return F.conv2d(features, self.weight, self.bias, padding=padding, groups=self.groups)

    def split(self, count: int, groups: int = 1) -> "list[Layer]":
        """`count` layers with an equal share of the outputs each."""
        pieces = zip(self.weight.chunk(count), self.bias.chunk(count), strict=True)
        return [Layer(weight, bias, groups) for weight, bias in pieces]


def joined(layers: Sequence[nn.Conv2d], groups: int = 1) -> Layer:
    """Convolutions of one shape as one, with the outputs of all; its weights are in the type it computes in."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([cast(Tensor, layer.bias) for layer in layers])
    dtype = compute_dtype(weight)
    return Layer(weight.to(dtype), bias.to(dtype), groups)


def pad_channels(features: Tensor, width: int) -> Tensor:
    """(B, C, H, W) → (B, width, H, W) with zeros in the new channels."""
    missing = width - features.shape[1]
    return features if missing == 0 else F.pad(features, (0, 0, 0, 0, 0, missing))


def channels_innermost(state: Tensor) -> Tensor:
    """The same numbers (B, C, H, W) with the strides that all sums have from here on, so that one graph serves them.

    A compiled block gets a graph for each kind of strides. Of one pixel, a pooled or upsampled tensor may have others
    than a sum, though they mean the same.
    """
    if state.shape[-1] == 1:
        return state.contiguous().flatten(1)[..., None, None]
    return state.contiguous(memory_format=torch.channels_last)


def recomputed_from(
    lowest: int | None, resolution: int, function: Callable[..., T], *arguments: object, draws_noise: bool = False
) -> T:
    """`function(*arguments)`; from the lowest resolution on, its activations are computed again in the backward pass.

    `draws_noise` says that the function draws random numbers, which must then be the same in the backward pass.
    """
    if lowest is None or resolution < lowest or not torch.is_grad_enabled():
        return function(*arguments)
    result: T = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=draws_noise)
    return result


class BottleneckTail(nn.Module):
    """A bottleneck without its first convolution: 3×3, 3×3, 1×1. At resolutions up to 2 the 3×3 ones are 1×1."""

    def __init__(self, middle: int, out_channels: int, resolution: int) -> None:
        super().__init__()
        kernel_size = 3 if resolution > 2 else 1
        self.mix_1 = convolution(middle, middle, kernel_size)
        self.mix_2 = convolution(middle, middle, kernel_size)
        self.expand = convolution(middle, out_channels)

    def after_reduce(self, reduced: Tensor) -> Tensor:
        """(B, M, H, W) → (B, out, H, W)."""
        hidden = self.mix_1(F.gelu(reduced))
        hidden = self.mix_2(F.gelu(hidden))
        output: Tensor = self.expand(F.gelu(hidden))
        return output


class Bottleneck(BottleneckTail):
    """Four convolutions 1×1, 3×3, 3×3, 1×1, each after an exact GELU.

    The caller applies the first GELU: the prior and the posterior network of one block read the same state, so one
    GELU serves both.
    """

    def __init__(self, in_channels: int, middle: int, out_channels: int, resolution: int) -> None:
        super().__init__(middle, out_channels, resolution)
        self.reduce = convolution(in_channels, middle)

    def forward(self, activated: Tensor) -> Tensor:
        """gelu(input) (B, in, H, W) → (B, out, H, W)."""
        return self.after_reduce(self.reduce(activated))


class TwoInputBottleneck(BottleneckTail):
    """A bottleneck over concat(state, feature), whose first convolution is a sum of one on each.

    The state's summand does not depend on the image. So it can be kept, and re-encoding another image for the same
    latents only needs that of the feature.
    """

    def __init__(self, width: int, middle: int, out_channels: int, resolution: int) -> None:
        super().__init__(middle, out_channels, resolution)
        self.reduce = convolution(width, middle)
        self.reduce_feature = convolution(width, middle, bias=False)
        bound = 1 / math.sqrt(2 * width)  # torch's Conv2d default for the fan-in of both inputs together
        for weight in (self.reduce.weight, self.reduce_feature.weight):
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, reduced_state: Tensor, feature: Tensor) -> Tensor:
        """`reduce(gelu(state))` (B, M, H, W) and a feature (B, C, H, W) → (B, out, H, W)."""
        return self.after_reduce(reduced_state + self.reduce_feature(F.gelu(feature)))
