"""The bottom-up pass: from an image to one feature map for each resolution.

Shapes: B batch, C width at the resolution R.
"""

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.model.precision import compute_dtype, without_autocast
from vdvae_lr.model.vdvae.layers import (
    Bottleneck,
    channels_innermost,
    convolution,
    pad_channels,
    recomputed_from,
    scale_weights,
)
from vdvae_lr.model.vdvae.layout import EncoderStage

Features = Mapping[int, Tensor]
"""Resolution R → (B, C, R, R): the last feature the encoder computed at that resolution."""


class EncoderBlock(nn.Module):
    """A residual bottleneck block. It is compiled, so what differs between blocks of one shape is `_shrunk`'s."""

    def __init__(self, resolution: int, width: int, middle: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(width, middle, width, resolution)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, R, R) → the same shape."""
        output: Tensor = features + self.bottleneck(F.gelu(features))
        return output


class Encoder(nn.Module):
    """All bottom-up blocks in order."""

    def __init__(
        self, stages: tuple[EncoderStage, ...], widths: Mapping[int, int], channels: int, bottleneck_multiple: float
    ) -> None:
        super().__init__()
        self.recomputed_from: int | None = None
        self.stages = stages
        self.widths = dict(widths)
        self.image_input = convolution(channels, widths[stages[0].resolution], 3)
        self.blocks = nn.ModuleList()
        for stage in stages:
            width = widths[stage.resolution]
            block = EncoderBlock(stage.resolution, width, int(width * bottleneck_multiple))
            scale_weights(block.bottleneck.expand, math.sqrt(1 / len(stages)))
            self.blocks.append(block)

    def forward(self, image: Tensor) -> Features:
        """Images on the input scale (B, channels, R, R) → features."""
        with without_autocast(image.device):  # bf16 has 8 bits of precision: it would round the details of x̂
            current = self.image_input(image)
        current = current.to(compute_dtype(next(self.blocks.parameters())))
        features = {current.shape[-1]: current}
        for stage, block in zip(self.stages, self.blocks, strict=True):
            width = self.widths[stage.output_resolution]
            current = recomputed_from(
                self.recomputed_from, stage.resolution, _shrunk, block, current, stage.pool, width
            )
            features[stage.output_resolution] = current
        return features


def _shrunk(block: nn.Module, features: Tensor, pool: int, width: int) -> Tensor:
    """A block's output, average-pooled and with zeros in new channels: (B, C, R, R) → (B, width, R/pool, R/pool)."""
    output: Tensor = block(features)
    return channels_innermost(pad_channels(F.avg_pool2d(output, pool) if pool > 1 else output, width))
