"""The bottom-up pass: from an image to one feature map for each resolution.

Shapes: B batch, C width at the resolution R.
"""

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.model.precision import compute_dtype, without_autocast
from vdvae_lr.model.vdvae.layers import Bottleneck, convolution, pad_channels, recomputed_from, scale_weights
from vdvae_lr.model.vdvae.layout import EncoderStage

Features = Mapping[int, Tensor]
"""Resolution R → (B, C, R, R): the last feature the encoder computed at that resolution."""


class EncoderBlock(nn.Module):
    """A residual bottleneck block, then average pooling if the stage has it, then channel padding."""

    def __init__(self, stage: EncoderStage, width: int, middle: int, output_width: int) -> None:
        super().__init__()
        self.pool = stage.pool
        self.output_width = output_width
        self.bottleneck = Bottleneck(width, middle, width, stage.resolution)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, R, R) → (B, C', R/pool, R/pool)."""
        features = features + self.bottleneck(F.gelu(features))
        if self.pool > 1:
            features = F.avg_pool2d(features, self.pool)
        return pad_channels(features, self.output_width)


class Encoder(nn.Module):
    """All bottom-up blocks in order."""

    def __init__(
        self, stages: tuple[EncoderStage, ...], widths: Mapping[int, int], channels: int, bottleneck_multiple: float
    ) -> None:
        super().__init__()
        self.recomputed_from: int | None = None
        self.image_input = convolution(channels, widths[stages[0].resolution], 3)
        self.blocks = nn.ModuleList()
        for stage in stages:
            width = widths[stage.resolution]
            block = EncoderBlock(stage, width, int(width * bottleneck_multiple), widths[stage.output_resolution])
            scale_weights(block.bottleneck.expand, math.sqrt(1 / len(stages)))
            self.blocks.append(block)

    def forward(self, image: Tensor) -> Features:
        """Images on the input scale (B, channels, R, R) → features."""
        with without_autocast(image.device):  # bf16 has 8 bits of precision: it would round the details of x̂
            current = self.image_input(image)
        current = current.to(compute_dtype(next(self.blocks.parameters())))
        features = {current.shape[-1]: current}
        for block in self.blocks:
            current = recomputed_from(self.recomputed_from, current.shape[-1], block, current)
            features[current.shape[-1]] = current
        return features
