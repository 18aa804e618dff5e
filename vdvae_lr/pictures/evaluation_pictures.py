"""Pictures of evaluations: images nearest collapse, models beside each other, and images under noise in the latents.

Shapes: B images, C channels (1 or 3), H W resolution.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.noise_response import CleanPass, LatentNoise, check_finite_images
from vdvae_lr.evaluation.quantities import InputRates
from vdvae_lr.evaluation.task import NOISE_VARIANCES, NoiseUnit, check_variances
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.films import film_frame
from vdvae_lr.pictures.images import Pictures, as_pictures, in_batches, reconstructions, samples, to_levels
from vdvae_lr.pictures.picture_grid import picture_grid

_TEMPERATURES = (1.0, 0.8)
_SAMPLES = (4, 8)  # rows, columns
_SAMPLE_TILE = 96  # pixels: harm to samples must be seen
_ENLARGED = 4  # times, of differences
_UNITS: Mapping[NoiseUnit, str] = {"raw": "raw units", "prior_scale": "prior's scale"}


def first_pixels(images: ImageSource, count: int) -> Tensor:
    """The first `count` images of a split, or all if it has fewer: (B, C, H, W) uint8."""
    return _pixels(images, range(min(count, len(images))))


def _pixels(images: ImageSource, numbers: Sequence[int]) -> Tensor:
    return torch.from_numpy(images.read(numbers)).permute(0, 3, 1, 2)


def nearest_collapse_picture(
    model: LatentModel, images: ImageSource, inputs: InputRates, *, seed: int, batch: int
) -> Image.Image:
    """The images whose latents say least (`inputs`, measured on the split `images`), above their reconstructions.

    With the measurement's seed, the reconstructions are of the latents whose rates the headers state.
    """
    numbers = [number for number, _ in inputs.nearest_collapse]
    parts = [
        reconstructions(model, _pixels(images, part), seed=seed, examples=part) for part in in_batches(numbers, batch)
    ]
    rows = [np.concatenate(row) for row in zip(*parts, strict=True)]
    headers = [f"no. {number}\n{rate:.3g}" for number, rate in inputs.nearest_collapse]
    return picture_grid(rows, ["image", "reconstruction"], headers, f"Number in the split, and KL(x) in {inputs.unit}")


def samples_picture(model: LatentModel, seed: int) -> Image.Image:
    """Samples, so large that harm to them shows; equal seeds give models the same noise."""
    rows, columns = _SAMPLES
    (drawn,) = samples(model, rows * columns, seed=seed)
    return picture_grid([*drawn.reshape(rows, columns, *drawn.shape[1:])], [""] * rows, least_tile=_SAMPLE_TILE)


def comparison_pictures(models: Mapping[str, LatentModel], pixels: Tensor, seed: int) -> dict[str, Image.Image]:
    """Grids by file name: reconstructions of images (B, C, H, W) uint8, B samples, and the images under noise.

    Each grid has rows for every model. The models are of one architecture and get the same noise.
    """
    reconstructed = {"image": as_pictures(pixels)}
    sampled: dict[str, Pictures] = {}
    for name, model in models.items():
        reconstructed[f"{name}, reconstructed"] = reconstructions(model, pixels, seed=seed)[1]
        drawn = samples(model, len(pixels), _TEMPERATURES, seed=seed)
        sampled |= {f"{name}, temperature {t:g}": row for t, row in zip(_TEMPERATURES, drawn, strict=True)}
    return {
        "reconstructions.png": picture_grid(list(reconstructed.values()), list(reconstructed)),
        "samples.png": picture_grid(list(sampled.values()), list(sampled)),
        "noise_response.png": noise_picture(models, pixels, variances=NOISE_VARIANCES, units=("raw",), seed=seed),
    }


def noise_picture(
    models: Mapping[str, LatentModel],
    pixels: Tensor,
    *,
    variances: Sequence[float],
    units: Sequence[NoiseUnit],
    seed: int,
    groups: Collection[int] | None = None,
    differences: bool = False,
) -> Image.Image:
    """The images, and below them the models' mean images under noise in the latents (the paper's figures 3, 5, 6).

    For each kind of noise the models stand below one another.

    Args:
        models: models of one architecture, by name; labels leave out an empty name.
        pixels: the images, (B, C, H, W) uint8.
        variances: variances of the noise; 0 gives a model's clean reconstructions, which are shown once.
        units: units of the noise, as in `LatentNoise`.
        seed: seed of posterior draws and noise, which are the same for every model.
        groups: latent groups that get noise, top-down from 0; None: all.
        differences: also show how far each image is from that without noise.

    Raises:
        InputError: there is no variance, or one is negative, not finite, or there twice.
        UnmeasurableError: a variance is so large that the images are not finite.
    """
    check_variances(variances)
    shown = {
        (name, unit): noise_pictures(
            model, pixels, (0.0, *filter(None, variances)), seed=seed, unit=unit, groups=groups
        )
        for name, model in models.items()
        for unit in units
    }
    labelled = [("image", as_pictures(pixels))]
    for number, variance in enumerate((0.0, *filter(None, variances))):
        for unit in units if variance else units[:1] if 0 in variances else ():  # 0 looks the same in every unit
            words = f"noise {variance:g}, {_UNITS[unit]}" if variance else "no noise"
            for name in models:
                beginning = f"{name}, " if name else ""
                clean, row = (shown[name, unit][place] for place in (0, number))
                labelled.append((f"{beginning}{words}", row))
                if differences and variance:
                    labelled.append((f"{beginning}|difference| x {_ENLARGED}", _difference(row, clean)))
    where = noisy_places(groups, next(iter(models.values())).latent_shapes)
    title = f"Mean images; noise of the stated variance in {where}"
    return picture_grid([row for _, row in labelled], [label for label, _ in labelled], title=title)


def noise_film(
    models: Mapping[str, LatentModel],
    pixels: Tensor,
    *,
    most: float,
    count: int,
    units: Sequence[NoiseUnit],
    seed: int,
    groups: Collection[int] | None = None,
    differences: bool = False,
) -> Callable[[int], Image.Image]:
    """Pictures 0 … count − 1 of a film: the images, and the models' mean images under one draw of noise that grows.

    The noise's standard deviation grows in equal steps from 0 to that of the variance `most`. Other arguments and
    errors are those of `noise_picture`.
    """
    variances = [most * share**2 for share in np.linspace(0, 1, count).tolist()]
    shown: dict[str, list[Pictures]] = {"image": [as_pictures(pixels)] * count}
    for unit in units:
        for name, model in models.items():
            label = f"{name}, {_UNITS[unit]}" if name else _UNITS[unit]
            moved = noise_pictures(model, pixels, variances, seed=seed, unit=unit, groups=groups)
            shown[label] = moved
            if differences:
                shown[f"{label}, |difference| x {_ENLARGED}"] = [_difference(row, moved[0]) for row in moved]
    where = noisy_places(groups, next(iter(models.values())).latent_shapes)
    digits = max(2, 2 - math.floor(math.log10(most)))  # so that the last digits move, and the text stays where it is

    def frame(number: int) -> Image.Image:
        title = f"noise of variance {variances[number]:.{digits}f} in {where}"
        return film_frame([rows[number] for rows in shown.values()], list(shown), (), title)

    return frame


def _difference(row: Pictures, clean: Pictures) -> Pictures:
    apart = np.abs(row.astype(np.int16) - clean.astype(np.int16))
    return np.minimum(apart * _ENLARGED, 255).astype(np.uint8)


@torch.inference_mode()
def noise_pictures(
    model: LatentModel,
    pixels: Tensor,
    variances: Sequence[float],
    *,
    seed: int,
    unit: NoiseUnit = "raw",
    groups: Collection[int] | None = None,
) -> list[Pictures]:
    """One model's mean images for each variance; arguments and errors are those of `noise_picture`."""
    check_variances(variances)
    clean = CleanPass(model, pixels, range(len(pixels)), seed)
    where = None if groups is None else frozenset(groups)
    largest, pictures = [], []
    for image in clean.images([LatentNoise(variance, unit, where) for variance in variances], at_once=0):
        largest.append(image.abs().amax())
        pictures.append(to_levels(model.pixel_scale, image))  # the many images of a film may not fit the device
    check_finite_images(torch.stack(largest), variances)
    return pictures


def noisy_places(groups: Collection[int] | None, every: Sequence[object]) -> str:
    """The latent groups that get noise, in words."""
    return "every group" if groups is None or len(groups) == len(every) else named_groups(sorted(groups))
