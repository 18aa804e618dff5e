"""What the re-encoder sees of a decoded image: all of it, or a low-pass of it (docs/method.md).

A low-pass keeps what is seen at a coarser resolution. So Latent Reconstruction through it asks for latents that show
there, and not for detail that only an encoder finds.

Shapes: B batch, C channels, S image size, R resolution of a low-pass, L latent groups.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vdvae_lr.errors import InputError
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, Latents

Reading = Literal["full", "random", "group"] | int


def cutoffs(image_size: int) -> tuple[int, ...]:
    """The image size and its power-of-two fractions, finest first: 28 → 28, 14, 7."""
    halvings = (image_size & -image_size).bit_length()  # how often 2 divides it, plus one
    return tuple(image_size >> number for number in range(halvings))


def low_passed(image: Tensor, resolution: int) -> Tensor:
    """Average squares of pixels down to R×R, and repeat each average over its square: (B, C, S, S) → the same shape."""
    factor = image.shape[-1] // resolution
    return image if factor == 1 else F.interpolate(F.avg_pool2d(image, factor), scale_factor=factor)


def randomly_low_passed(image: Tensor, draw: Tensor) -> Tensor:
    """Each image (B, C, S, S) through one of `cutoffs`. Uniform draws (B, 1, 1, 1) from [0, 1) choose evenly.

    The host never reads the choice: every low-pass is computed, so the shapes do not depend on it.
    """
    choices = cutoffs(image.shape[-1])
    seen = image
    for number, resolution in enumerate(choices[1:], start=1):
        seen = torch.where(draw * len(choices) >= number, low_passed(image, resolution), seen)
    return seen


def read_again(
    reading: Reading, model: LatentModel, latents: Latents, image: Tensor, draw: Tensor | None = None
) -> tuple[DiagonalGaussian, ...]:
    """q(z_l | z_<l, x̂) of every group, where x̂ is what `reading` shows of the decoded `image` (B, C, S, S).

    Args:
        reading: what is shown. With `group` the encoder runs once for each resolution that the groups have.
        model: the model that re-encodes.
        latents: the latents of the image, with kept contexts.
        image: the decoded image on the target scale.
        draw: uniform draws (B, 1, 1, 1), for `random`.

    Raises:
        ValueError: the reading is random, and there is no draw.
    """
    if reading == "group":
        features = {each: model.encode_target(low_passed(image, each)) for each in dict.fromkeys(model.resolutions)}
        return tuple(model.posterior(group, latents, features[each]) for group, each in enumerate(model.resolutions))
    if reading == "random":
        if draw is None:
            raise ValueError("a random reading needs its draw")
        image = randomly_low_passed(image, draw)
    elif isinstance(reading, int):
        image = low_passed(image, reading)
    return model.reencode(latents, image)


def check_cutoff(reading: Reading, image_size: int) -> None:
    """Refuse a number that no low-pass of such images has; raises InputError."""
    if isinstance(reading, int) and reading not in cutoffs(image_size):
        fitting = ", ".join(map(str, cutoffs(image_size)))
        raise InputError(
            f"lr_reading is {reading}, which is no power-of-two fraction of the image size {image_size}; choose one of "
            f"{fitting}, or random, group or full."
        )


def check_group_reading(model: LatentModel) -> None:
    """Refuse a model whose groups have no resolution to read through; raises InputError."""
    size = model.image_shape[-1]
    wrong = next((each for each in model.resolutions if size % each), None)
    if max(model.resolutions) == 1 or wrong is not None:
        why = (
            "are vectors" if wrong is None else f"have resolution {wrong}, which does not divide the image size {size}"
        )
        raise InputError(
            f"lr_reading is group, but latents of {type(model).__name__} {why}; choose full, random or a resolution."
        )
