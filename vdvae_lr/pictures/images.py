"""Pictures as arrays: images that a model makes, as uint8 levels. `picture_grid.py` lays them out.

Shapes: B images, C channels (1 or 3), H W resolution.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, ExampleNoise, Examples, levels_for
from vdvae_lr.model.latent_model import DecodedImage, LatentModel
from vdvae_lr.model.pixels import PixelScale

S = TypeVar("S", bound=Sequence[Any])
Pictures = npt.NDArray[np.uint8]
"""(B, H, W, C) unless another shape is stated."""
SAMPLES_NOISE = "samples"


def to_levels(scale: PixelScale, image: Tensor) -> Pictures:
    """Images (B, C, H, W) on the target scale → (B, H, W, C) uint8, rounded and clipped.

    With fewer than 8 bits a target stands for several levels, and the middle one is shown. Their lowest one would make
    the picture darker.
    """
    pictures: Pictures = level_tensor(scale, image).cpu().numpy()
    return pictures


def level_tensor(scale: PixelScale, image: Tensor) -> Tensor:
    """`to_levels` as a tensor on the images' device: (B, H, W, C) uint8."""
    levels = scale.levels_from_target(image.float()).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def checked_levels(model: LatentModel, image: Tensor) -> Pictures:
    """`to_levels`, for images of chosen latents (raises InputError if latents unlike the model's own gave NaN)."""
    check_made(image.isnan().any())
    return to_levels(model.pixel_scale, image)


def check_made(broken: Tensor) -> None:
    """Refuse images of latents unlike the model's own: `broken` says whether one is NaN (raises InputError)."""
    if bool(broken):
        raise InputError(
            "the decoder makes no image of such latents (NaN); lower the temperature, or stay nearer to an image's."
        )


def as_pictures(pixels: Tensor) -> Pictures:
    """Stored pixels (B, C, H, W) uint8 → (B, H, W, C)."""
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


@torch.inference_mode()
def reconstructions(
    model: LatentModel, pixels: Tensor, *, seed: int, examples: Examples | None = None
) -> tuple[Pictures, Pictures]:
    """The images (B, C, H, W) uint8 themselves, and the likelihood's mean images for one draw of their latents.

    The draw is that of `evaluate_bound`. It depends on the seed and on the images' numbers in their split, which are
    `examples` (None: 0 … B−1).
    """
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed).draw(range(len(pixels)) if examples is None else examples)
    passed = model.infer(levels_for(model, pixels), noise.posterior)
    return as_pictures(pixels), to_levels(model.pixel_scale, passed.likelihood.mean())


@torch.inference_mode()
def samples(
    model: LatentModel,
    count: int,
    temperatures: Sequence[float | Sequence[float]] = (1.0,),
    *,
    seed: int,
    image: DecodedImage | None = None,
) -> tuple[Pictures, ...]:
    """`count` pictures from the prior for each temperature, all from the same noise; `sampled_images` has the rest."""
    drawn = sampled_images(model, range(count), temperatures, seed=seed, image=image)
    return tuple(to_levels(model.pixel_scale, images) for images in drawn)


def sampled_images(
    model: LatentModel,
    numbers: Sequence[int],
    temperatures: Sequence[float | Sequence[float]],
    *,
    seed: int,
    image: DecodedImage | None,
) -> list[Tensor]:
    """Samples for each temperature, all from the same noise: (B, C, H, W) each, on the target scale.

    Args:
        numbers: numbers of the samples; sample i is the same in every batch.
        temperatures: each is a factor of the prior's scale, one for all groups or one for each.
        seed: seed of the noise.
        image: sample: an image drawn from p(x|z), as in the published code; mean: the likelihood's mean; None: what the
            model's samples show.
    """
    image = image or model.sample_shows
    noise = ExampleNoise(model, SAMPLES_NOISE, seed, prior=True, image=image == "sample").draw(numbers)
    passes = (model.generate(len(numbers), noise.prior, temperature) for temperature in temperatures)
    return [passed.decoded(image, noise.image) for passed in passes]


def in_batches(items: S, batch: int) -> Iterator[S]:
    """The items in their order, `batch` at a time (raises InputError if `batch` is below 1)."""
    if batch < 1:
        raise InputError(f"batch is {batch}; it must be 1 or more.")
    return (items[start : start + batch] for start in range(0, len(items), batch))  # type: ignore[misc]


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is not one of a `Literal`'s (raises InputError)."""
    known = get_args(choices)
    if not isinstance(value, str) or value not in known:
        given = repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"
        raise InputError(f"{name} is {given}; it must be {' or '.join(known)}.")
