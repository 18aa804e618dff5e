"""`sample`: any number of pictures from the prior, made a batch at a time.

Shapes: B pictures, C channels (1 or 3), H W resolution.
"""

from collections.abc import Iterator

import numpy as np
import torch

from vdvae_lr.errors import InputError
from vdvae_lr.model.latent_model import DecodedImage, LatentModel
from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures
from vdvae_lr.pictures.images import Pictures, check_choice, checked_levels, in_batches, sampled_images


def sample(
    model: LatentModel,
    count: int,
    *,
    temperature: Temperature = 1.0,
    seed: int = 0,
    image: DecodedImage | None = None,
    batch: int = 32,
) -> Pictures:
    """Pictures from the prior: (count, H, W, C) uint8.

    Args:
        count: number of pictures.
        temperature: factor of the prior's scale: a number, a number for each group, or text such as
            `"16x16:0.8,32x32:0.7"`.
        seed: seed of the noise. Picture i is the same for every `count` on one kind of device, up to rounding.
        image: sample: drawn from p(x|z), as in the published code; mean: the likelihood's mean, which has no noise of
            single pixels; None: as the model has it, which is sample for a VDVAE.
        batch: number of pictures made at once, for memory and time. It changes pictures by rounding only.

    Raises:
        InputError: `count` or `batch` is below 1, a choice is unknown, or the temperature cannot be used or is so high
            that the decoder makes no image.
    """
    return np.concatenate(list(sample_batches(model, count, temperature, seed, image, batch)))


def sample_batches(
    model: LatentModel, count: int, temperature: Temperature, seed: int, image: DecodedImage | None, batch: int
) -> Iterator[Pictures]:
    """The pictures of `sample`, at most `batch` at a time, so that any number of them fits in memory."""
    if image is not None:
        check_choice("image", image, DecodedImage)
    if count < 1:
        raise InputError(f"count is {count}; it must be 1 or more.")
    factors = group_temperatures(temperature, model.resolutions)
    return (_drawn(model, numbers, factors, seed, image) for numbers in in_batches(range(count), batch))


@torch.inference_mode()
def _drawn(
    model: LatentModel, numbers: range, factors: tuple[float, ...], seed: int, image: DecodedImage | None
) -> Pictures:
    (images,) = sampled_images(model, numbers, (factors,), seed=seed, image=image)
    return checked_levels(model, images)
