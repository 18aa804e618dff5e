"""`reconstruct`: images from the first k groups of their posterior, with the other groups from the prior.

The prior's temperature is low, as in the published figure (Child 2020), so that a picture shows what the first k groups
carry.

Shapes: B images, C channels (1 or 3), H W resolution, L latent groups.
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
from vdvae_lr.pictures.images import Pictures, in_batches
from vdvae_lr.pictures.latent_codes import PosteriorLatents, levels_of, mean_pictures, posterior_noise

REST_NOISE = "reconstruct"  # purpose of the noise in groups from the prior; the noise does not depend on k


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
    """The likelihood's mean images, with the images' own latents in the first groups: (B, H, W, C) uint8.

    Args:
        images: (B, H, W, C) uint8, or image files and folders.
        first_groups: k, from 0 to L; None: all.
        latents: mean: the posterior's mean in each group; sample: one draw, which is that of `evaluate_bound`.
        temperature: temperature of the groups from the prior; 0: the prior's mean.
        seed: seed of all noise.
        batch: number of images at once, for memory and time. It changes pictures by rounding only.
        examples: the images' numbers, on which the noise depends; None: 0 … B−1.

    Raises:
        InputError: the images, the number of groups or the temperature cannot be used, or a choice is unknown.
    """
    pictures = pictures_of(model, images)
    groups = range(len(model.resolutions))
    kept = len(groups) if first_groups is None else first_groups
    check_first_groups(kept, model.resolutions)
    factors = group_temperatures(temperature, model.resolutions)
    numbers = np.arange(len(pictures)) if examples is None else np.asarray(examples, dtype=np.int64)
    rest = ExampleNoise(model, REST_NOISE, seed)
    parts = []
    for rows in in_batches(range(len(pictures)), batch):
        own = posterior_noise(model, latents, seed, numbers[rows])
        drawn = rest.draw(numbers[rows]).posterior if kept < len(groups) else own
        origins = [
            FromPosterior(own[group]) if group < kept else FromPrior(drawn[group], factors[group]) for group in groups
        ]
        parts.append(mean_pictures(model, origins, len(rows), model.encode(levels_of(model, pictures[rows]))))
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
