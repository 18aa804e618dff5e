"""`sample`: pictures from the prior, any number of them, a batch at a time.

Shapes: B pictures, C channels (1 or 3), H W resolution.
"""

from collections.abc import Iterator

import numpy as np
import torch

from vdvae_lr.errors import InputError
from vdvae_lr.model.latent_model import DecodedImage, LatentModel
from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures
from vdvae_lr.pictures.images import Pictures, sampled_images
from vdvae_lr.pictures.latent_codes import check_choice, chunks, numeric_levels


def sample(
    model: LatentModel,
    count: int,
    *,
    temperature: Temperature = 1.0,
    seed: int = 0,
    image: DecodedImage = "sample",
    batch: int = 32,
) -> Pictures:
    """Pictures that the model makes by itself: (count, H, W, C) uint8.

    Args:
        model: on its device.
        count: how many.
        temperature: multiplies the prior's scale: a number, one for each group, or words such as
            `"16x16:0.8,32x32:0.7"`.
        seed: of the noise; picture i is the same for every `count` on one kind of device, but for rounding.
        image: sample: drawn from p(x|z), as published; mean: the mixture's mean, without the noise of single pixels.
        batch: pictures at once, for memory and time; they are the same but for rounding.

    Raises:
        InputError: no picture, no such temperature, or one so high that the decoder makes no image.
    """
    drawn = sample_batches(model, count, temperature=temperature, seed=seed, image=image, batch=batch)
    return np.concatenate(list(drawn))


def sample_batches(
    model: LatentModel, count: int, *, temperature: Temperature, seed: int, image: DecodedImage, batch: int
) -> Iterator[Pictures]:
    """The pictures of `sample`, at most `batch` at a time, so that any number of them fits in memory."""
    check_choice("image", image, DecodedImage)
    if count < 1:
        raise InputError(f"count is {count}; ask for 1 picture or more.")
    factors = group_temperatures(temperature, model.resolutions)
    return (_drawn(model, chunk, factors, seed, image) for chunk in chunks(count, batch))


@torch.inference_mode()
def _drawn(model: LatentModel, numbers: range, factors: tuple[float, ...], seed: int, image: DecodedImage) -> Pictures:
    (images,) = sampled_images(model, numbers, (factors,), seed=seed, image=image)
    return numeric_levels(model, images)
