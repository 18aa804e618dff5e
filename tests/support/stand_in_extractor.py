"""A tiny network in the place of Inception: its features are the mean levels of the four quarters of an image."""

import torch
from torch import Tensor, nn

from vdvae_lr.evaluation.quality.extractor import Extractor


class Quarters(nn.Module):
    """(B, 3, H, W) uint8 → (B, 4): mean levels of the quarters, of all channels, in units of 255."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255), requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.dtype == torch.uint8 and pixels.shape[1] == 3
        return nn.functional.adaptive_avg_pool2d(pixels.float().mean(1), 2).flatten(1) * self.scale


def stand_in_extractor(digest: str = "0123456789abcdef" * 4) -> Extractor:
    return Extractor(Quarters(), 4, "quarters", digest)
