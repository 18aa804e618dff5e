"""Mean images under noise in the latents: what collapse looks like (the paper's figures 3, 5, 6).

Shapes: B images, C channels, H W resolution.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from vdvae_lr.evaluation.batches import Examples
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.noise_response import UNIT_WORDS, CleanPass, LatentNoise, check_finite_images, image_rms
from vdvae_lr.evaluation.task import NoiseUnit, check_variances
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.images import Pictures, as_pictures, to_levels
from vdvae_lr.pictures.picture_grid import picture_grid


@dataclass(frozen=True)
class NoiseResponse:
    """Pictures by variance, and how far they are from those without noise."""

    variances: tuple[float, ...]
    pictures: tuple[Pictures, ...]
    """(B, H, W, C) uint8 for each variance."""
    rms: tuple[float, ...]
    """Root mean square difference of an image from its clean one, in units of 255 levels, averaged over the images."""
    rms_standard_errors: tuple[float, ...]
    """Over the images; NaN for a single one."""


@torch.inference_mode()
def noise_response(
    model: LatentModel,
    pixels: Tensor,
    variances: Sequence[float],
    *,
    seed: int,
    unit: NoiseUnit = "raw",
    groups: Collection[int] | None = None,
    examples: Examples | None = None,
) -> NoiseResponse:
    """Reconstructions under latent noise; models of one architecture get the same noise, keyed by example.

    Args:
        model: on its device.
        pixels: (B, C, H, W) uint8.
        variances: of the noise; 0 gives the clean reconstruction.
        seed: of posterior draws (those of `evaluate_bound`) and noise.
        unit: as in `LatentNoise`.
        groups: which latent groups get noise, top-down from 0; None: all.
        examples: the images' numbers in their split, for the noise's key; 0 … B−1 when left out.

    Raises:
        InputError: a variance that is none, or that is there twice.
        UnmeasurableError: one so large that the images are no numbers.
    """
    check_variances(variances)
    clean = CleanPass(model, pixels, range(len(pixels)) if examples is None else examples, seed)
    where = None if groups is None else frozenset(groups)
    images = list(clean.images([LatentNoise(variance, unit, where) for variance in variances], at_once=0))
    moments = Moments((len(images),), model.device)
    moments.add(torch.stack([image_rms(image, clean.image) for image in images], dim=1))
    check_finite_images(moments.mean, variances)
    return NoiseResponse(
        tuple(variances),
        tuple(to_levels(model.pixel_scale, image) for image in images),
        tuple(moments.mean.tolist()),
        tuple(moments.standard_error.tolist()),
    )


def noise_pictures(
    model: LatentModel,
    pixels: Tensor,
    *,
    variances: Sequence[float],
    unit: NoiseUnit,
    seed: int,
    name: str,
    groups: Collection[int] | None = None,
) -> tuple[list[Pictures], list[str]]:
    """Rows and labels for `picture_grid`: the first images of a split, a row a variance.

    Args:
        model: on its device.
        pixels: (B, C, H, W) uint8.
        variances: of the noise; 0 gives the clean reconstructions.
        unit: as in `LatentNoise`.
        seed: of posterior draws and noise.
        name: what labels call the model; empty: they do not.
        groups: which latent groups get noise, top-down from 0; None: all.

    Raises:
        InputError: a variance that is none, or that is there twice.
        UnmeasurableError: one so large that the images are no numbers.
    """
    response = noise_response(model, pixels, variances, seed=seed, unit=unit, groups=groups)
    beginning = f"{name}, " if name else ""
    labels = [f"{beginning}noise {variance:g}{UNIT_WORDS[unit]}" for variance in variances]
    return list(response.pictures), labels


def noise_picture(
    models: Mapping[str, LatentModel],
    pixels: Tensor,
    *,
    variances: Sequence[float],
    units: Sequence[NoiseUnit],
    seed: int,
    groups: Collection[int] | None = None,
) -> Image.Image:
    """The images (B, C, H, W) uint8, and below them each model's under every noise level; same noise in all.

    Args:
        models: of one architecture, by name.
        pixels: the first images of a split.
        variances: of the noise; 0 gives a model's clean reconstructions, shown once.
        units: of the noise.
        seed: of posterior draws and noise.
        groups: which latent groups get noise, top-down from 0; None: all.
    """
    rows, labels = [as_pictures(pixels)], ["image"]
    for name, model in models.items():
        shown = list(variances)
        for unit in units:
            if shown:
                more = noise_pictures(model, pixels, variances=shown, unit=unit, seed=seed, name=name, groups=groups)
                rows += more[0]
                labels += more[1]
            shown = [variance for variance in variances if variance > 0]  # nothing, in any unit, looks the same
    where = noisy_places(groups, next(iter(models.values())).latent_shapes)
    return picture_grid(rows, labels, title=f"Mean images; noise of the stated variance in {where}")


def noisy_places(groups: Collection[int] | None, every: Sequence[object]) -> str:
    """Which latent groups get noise, in words."""
    return "every group" if groups is None or len(groups) == len(every) else named_groups(sorted(groups))
