"""The inputs nearest collapse, to look at: for whom the latents say least.

Shapes: B images, C channels, H W resolution.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.evaluation.quantities import InputRates
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.images import Pictures, reconstructions
from vdvae_lr.pictures.picture_grid import picture_grid


def nearest_collapse_picture(
    model: LatentModel, source: ImageSource, inputs: InputRates, *, seed: int, batch: int
) -> Image.Image:
    """A row for each of `inputs.nearest_collapse`: its number and rate, the image, its reconstruction.

    Args:
        model: on its device.
        source: the split that the numbers are of.
        inputs: from `measure_rates` on that split.
        seed: of the posterior's noise: the reconstruction is of the latents whose rate is stated.
        batch: images at once.
    """
    numbers = [number for number, _ in inputs.nearest_collapse]
    rows = [
        np.stack(pair)
        for start in range(0, len(numbers), batch)
        for pair in zip(*_pairs(model, source, numbers[start : start + batch], seed), strict=True)
    ]
    labels = [f"image {number}, KL {rate:.4g} {inputs.unit}" for number, rate in inputs.nearest_collapse]
    return picture_grid(rows, labels)


def _pairs(model: LatentModel, source: ImageSource, numbers: Sequence[int], seed: int) -> tuple[Pictures, Pictures]:
    pixels = torch.from_numpy(source.read(numbers)).permute(0, 3, 1, 2)
    return reconstructions(model, pixels, seed=seed, examples=numbers)
