"""`reconstruct`: images from the first k groups of their posterior, the other groups from the prior.

As in the published figure (Child 2020): the first k groups come from the image, the others from the prior at a low
temperature, so that what the image shows is what those k groups carry.

Shapes: B images, C channels (1 or 3), H W resolution.
"""

from operator import index

import numpy as np
import torch

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import ExampleNoise, Examples
from vdvae_lr.evaluation.group_choice import describe_groups
from vdvae_lr.model.latent_model import FromPosterior, FromPrior, LatentModel
from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures
from vdvae_lr.pictures.image_files import Images, pictures_of
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import (
    PosteriorLatents,
    check_choice,
    chunks,
    decoded_pictures,
    levels_of,
    posterior_noise,
)

REST_NOISE = "reconstruct"
"""Purpose of the noise of groups that come from the prior: the same for every k."""


@torch.inference_mode()
def reconstruct(
    model: LatentModel,
    images: Images,
    *,
    first_groups: int | None = None,
    latents: PosteriorLatents = "mean",
    temperature: Temperature = 0.1,
    seed: int = 0,
    batch: int = 32,
    examples: Examples | None = None,
) -> Pictures:
    """The mixture's mean images of latents that are the images' in the first groups: (B, H, W, C) uint8.

    Args:
        model: on its device.
        images: (B, H, W, C) uint8, or image files and folders.
        first_groups: k, from 0 to L; None: all.
        latents: mean: each group's posterior mean; sample: one draw, with the noise of `evaluate_bound`.
        temperature: of the groups from the prior; 0: the prior's mean.
        seed: of the noise.
        batch: images at once, for memory and time; pictures are the same but for rounding.
        examples: the images' numbers, for the noise's key; 0 … B−1 when left out.

    Raises:
        InputError: images, a number of groups or a temperature that cannot be used.
    """
    check_choice("latents", latents, PosteriorLatents)
    pictures = pictures_of(model.config, images)
    resolutions = model.resolutions
    kept = len(resolutions) if first_groups is None else first_groups
    check_first_groups(kept, resolutions)
    factors = group_temperatures(temperature, resolutions)
    numbers = np.arange(len(pictures)) if examples is None else np.asarray(examples, dtype=np.int64)
    rest = ExampleNoise(model, REST_NOISE, seed)
    parts = []
    for chunk in chunks(len(pictures), batch):
        rows = slice(chunk.start, chunk.stop)
        own = posterior_noise(model, latents, seed, numbers[rows])
        drawn = rest.draw(numbers[rows]).posterior if kept < len(resolutions) else own
        sources = [
            FromPosterior(own[group]) if group < kept else FromPrior(drawn[group], factors[group])
            for group in range(len(resolutions))
        ]
        parts.append(decoded_pictures(model, sources, len(chunk), model.encode(levels_of(model, pictures[rows]))))
    return np.concatenate(parts)


def check_first_groups(count: int, resolutions: tuple[int, ...]) -> None:
    """Refuse a number of first groups that the model does not have (raises InputError)."""
    try:
        index(count)
    except TypeError:
        raise InputError(
            f"first_groups is {count!r}; it must be a whole number of groups: {describe_groups(resolutions)}."
        ) from None
    if not 0 <= count <= len(resolutions):
        raise InputError(f"the first {count} groups cannot be had: {describe_groups(resolutions)}.")
