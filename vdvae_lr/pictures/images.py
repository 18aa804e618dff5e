"""Pictures that a model makes, as uint8 levels; grey and colour alike. `picture_grid.py` lays them out.

Shapes: B images, C channels (1 or 3), H W resolution.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, ExampleNoise, Examples, levels_for
from vdvae_lr.model.latent_model import DecodedImage, LatentModel
from vdvae_lr.model.pixels import PixelScale

Pictures = npt.NDArray[np.uint8]
SAMPLES_NOISE = "samples"


def to_levels(scale: PixelScale, image: Tensor) -> Pictures:
    """Images (B, C, H, W) on the target scale → (B, H, W, C) uint8, rounded and clipped.

    With fewer than 8 bits the middle of a target's levels is shown: flooring them had made pictures darker.
    """
    levels = scale.levels_from_target(image.float()).round().clamp(0, 255)
    pictures: Pictures = levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pictures


def as_pictures(pixels: Tensor) -> Pictures:
    """Stored pixels (B, C, H, W) uint8 → (B, H, W, C)."""
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


@torch.inference_mode()
def reconstructions(
    model: LatentModel, pixels: Tensor, *, seed: int, examples: Examples | None = None
) -> tuple[Pictures, Pictures]:
    """The images (B, C, H, W) uint8 themselves, and the mixture's mean for latents drawn from their posterior.

    Args:
        model: on its device.
        pixels: the images.
        seed: of the posterior draws, those of `evaluate_bound`.
        examples: the images' numbers in their split, for the noise's key; 0 … B−1 when left out.
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
    image: DecodedImage = "sample",
) -> tuple[Pictures, ...]:
    """`count` pictures from the prior for each temperature, all from the same noise: (count, H, W, C) each.

    Args:
        model: on its device.
        count: B.
        temperatures: each multiplies the prior's scale: one number for all groups, or one for each.
        seed: of the noise; picture i is the same for every `count`.
        image: sample: drawn from p(x|z), as published; mean: the mixture's mean.
    """
    drawn = sampled_images(model, range(count), temperatures, seed=seed, image=image)
    return tuple(to_levels(model.pixel_scale, images) for images in drawn)


def sampled_images(
    model: LatentModel,
    examples: Examples,
    temperatures: Sequence[float | Sequence[float]],
    *,
    seed: int,
    image: DecodedImage,
) -> list[Tensor]:
    """The samples of some numbers, as `samples` makes them: (B, C, H, W) on the target scale for each temperature."""
    noise = ExampleNoise(model, SAMPLES_NOISE, seed, prior=True, image=image == "sample").draw(examples)
    passes = (model.generate(len(examples), noise.prior, temperature) for temperature in temperatures)
    return [passed.decoded(image, noise.image) for passed in passes]
