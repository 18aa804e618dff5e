"""The change of an image split by spatial scale, so that a change of shape is told from a change of fine detail.

The image is averaged over blocks, level by level: a band is what a level has and the next coarser one lacks. This is a
Laplacian pyramid with block averages in both directions (Haar). Its bands are orthogonal, so their squares add up to
the square of the whole change.

Shapes: B images, C channels, H = W resolution, K bands.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def band_resolutions(size: int) -> tuple[int, ...]:
    """The resolution of each of K bands of an image of `size` pixels a side, finest first; 1 is the mean colour.

    It halves while it is even. An odd resolution is averaged to 1 at once: 28, 14, 7, 1.
    """
    found = [size]
    while found[-1] > 1:
        found.append(1 if found[-1] % 2 else found[-1] // 2)
    return tuple(found)


def band_name(band: int, bands: Sequence[int]) -> str:
    """What to call one of the bands of an image: 32x32 (finest), 16x16, …, 1x1 (mean)."""
    remark = " (finest)" if band == max(bands) else " (mean)" if band == 1 else ""
    return f"{band}x{band}{remark}"


def band_squares(change: Tensor) -> Tensor:
    """The mean square of each band of a change (B, C, H, W), over all its numbers: (B, K) float64, finest first.

    They add up to the mean square of the change. The band of resolution r has patterns of r×r blocks whose mean over
    each block of the next coarser resolution is 0; that of resolution 1 has the mean of each channel.
    """
    level, squares = change.double(), []
    for finer, coarser in pairwise(band_resolutions(change.shape[-1])):
        times = finer // coarser
        mean = F.avg_pool2d(level, times)
        band = level - mean.repeat_interleave(times, 2).repeat_interleave(times, 3)
        squares.append(band.square().flatten(1).mean(1))
        level = mean
    return torch.stack([*squares, level.square().flatten(1).mean(1)], dim=1)
