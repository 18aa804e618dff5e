"""One model's response to latent noise on some images: the pictures, and how far they move."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from training_runs import ALONE

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.evaluation.noise_response import LatentNoise, image_rms, response_moments
from vdvae_lr.evaluation.task import NoiseUnit
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.evaluation_pictures import noise_pictures
from vdvae_lr.pictures.images import Pictures


@dataclass(frozen=True)
class NoiseResponse:
    """Pictures, and the mean RMS difference from the clean images with its standard error, for each variance."""

    pictures: list[Pictures]
    rms: list[float]
    rms_standard_errors: list[float]


def noise_response(
    model: LatentModel,
    pixels: Tensor,
    variances: Sequence[float],
    *,
    seed: int,
    unit: NoiseUnit = "raw",
    groups: Collection[int] | None = None,
) -> NoiseResponse:
    """The response measured in one batch; arguments as for `noise_pictures`."""
    pictures = noise_pictures(model, pixels, variances, seed=seed, unit=unit, groups=groups)
    noises = [LatentNoise(variance, unit, None if groups is None else frozenset(groups)) for variance in variances]
    batch = Batch(pixels, np.arange(len(pixels)), 0, 0, 0)
    moments = response_moments(model, [batch], noises, [image_rms], seed=seed, world=ALONE)
    return NoiseResponse(pictures, moments.mean.tolist(), moments.standard_error.tolist())
