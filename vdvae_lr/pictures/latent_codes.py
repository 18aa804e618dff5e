"""Latents of images taken apart and put together again: what interpolating, traversing and swapping share.

A group's latents have two kinds of coordinates:

- latents: z_l itself. An edited z_l leaves the other groups' numbers where they are.
- standardised: ε_l = (z_l − μ_p,l(z_<l)) / σ_p,l(z_<l), in which the prior is N(0, I) over all groups at once. The map
  between ε and z is one to one (ancestral sampling). If ε_l is kept while z_<l changes, z_l moves along with its prior,
  so that finer groups follow the coarser ones.

Shapes: B images, C channels, H W resolution, L latent groups of (Z, R, R).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, ExampleNoise, Examples, levels_for
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import FromPrior, Given, LatentModel, Latents, LatentSource
from vdvae_lr.pictures.images import Pictures, to_levels

Coordinates = Literal["standardised", "latents"]
PosteriorLatents = Literal["mean", "sample"]


def values_of(code: Latents, coordinates: Coordinates) -> tuple[Tensor, ...]:
    """z or ε of every group, (B, Z, R, R) each.

    Raises:
        InputError: the model's own latents are not finite; or a group has no standardised values, because its prior has
            no width.
    """
    for number, (latent, prior) in enumerate(zip(code.latents, code.priors, strict=True)):
        if not all(bool(tensor.isfinite().all()) for tensor in (latent, prior.mean, prior.log_scale.exp())):
            raise InputError(
                f"latent group {number} or its prior is not finite (NaN or infinite) before anything is changed; "
                "try other images, a lower temperature, or other weights."
            )
    if coordinates == "latents":
        return code.latents
    pairs = zip(code.latents, code.priors, strict=True)
    noise = tuple((latent - prior.mean) / prior.log_scale.exp() for latent, prior in pairs)
    bad = next((number for number, values in enumerate(noise) if not bool(values.isfinite().all())), None)
    if bad is not None:
        raise InputError(
            f"latent group {bad} has a prior of zero variance, or nearly so, and no standardised values; choose "
            "coordinates latents."
        )
    return noise


def edited(code: Latents, values: Sequence[Tensor], coordinates: Coordinates, held: int) -> list[LatentSource]:
    """Sources of an edit: the first `held` groups keep their latents, the others are `values` in `coordinates`."""
    kept: list[LatentSource] = [Given(latent) for latent in code.latents[:held]]
    if coordinates == "latents":
        return [*kept, *(Given(value) for value in values[held:])]
    return [*kept, *(FromPrior(value) for value in values[held:])]


def posterior_noise(model: LatentModel, latents: PosteriorLatents, seed: int, examples: Examples) -> Sequence[Tensor]:
    """Noise for `LatentModel.infer`: zeros for the posterior's mean in every group, or the draws of the evaluation."""
    if latents == "sample":
        return ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    return [model.weight.new_zeros(1, 1, 1, 1).expand(len(examples), *shape) for shape in model.latent_shapes]


def infer_code(model: LatentModel, pictures: Pictures, latents: PosteriorLatents, seed: int, batch: int) -> Latents:
    """The latents of images (B, H, W, C) uint8, `batch` at a time; `latents` and `seed` as in `posterior_noise`.

    Raises:
        InputError: `batch` is below 1.
    """
    codes: list[Latents] = []
    for chunk in chunks(len(pictures), batch):
        levels = levels_of(model, pictures[chunk.start : chunk.stop])
        codes.append(model.infer(levels, posterior_noise(model, latents, seed, chunk)))
    return _joined(codes)


def _joined(codes: Sequence[Latents]) -> Latents:
    """The latents and priors of all images, one after the other."""
    if len(codes) == 1:
        return codes[0]
    groups = range(len(codes[0].latents))
    priors = (
        DiagonalGaussian(
            torch.cat([code.priors[group].mean for code in codes]),
            torch.cat([code.priors[group].log_scale for code in codes]),
        )
        for group in groups
    )
    return Latents(tuple(torch.cat([code.latents[group] for code in codes]) for group in groups), tuple(priors), (), ())


def levels_of(model: LatentModel, pictures: Pictures) -> Tensor:
    """Pictures (B, H, W, C) uint8 → levels (B, C, H, W) in the model's number format, on its device."""
    return levels_for(model, torch.from_numpy(pictures).permute(0, 3, 1, 2))


def decoded_pictures(model: LatentModel, sources: Sequence[LatentSource], count: int, features: Any = None) -> Pictures:
    """The likelihood's mean images: (count, H, W, C) uint8; `features` where a source is the posterior.

    Raises:
        InputError: as `numeric_levels`.
    """
    return numeric_levels(model, model.top_down(sources, count, features).likelihood.mean())


def own_pictures(model: LatentModel, code: Latents) -> Pictures:
    """The reconstructions of some latents: (B, H, W, C) uint8 (raises InputError as `numeric_levels`)."""
    return numeric_levels(model, model.decode(code.latents).likelihood.mean())


def numeric_levels(model: LatentModel, image: Tensor) -> Pictures:
    """Images (B, C, H, W) on the target scale → (B, H, W, C) uint8.

    Raises:
        InputError: latents so far from what the model knows that their image holds NaN.
    """
    if bool(image.isnan().any()):
        raise InputError(
            "the decoder makes no image of such latents (NaN); lower the temperature, or stay nearer to an image's."
        )
    return to_levels(model.pixel_scale, image)


def chunks(count: int, batch: int) -> Iterator[range]:
    """`count` things in their order, `batch` at a time: ⌈count / batch⌉ ranges.

    Raises:
        InputError: `batch` is none.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}; it must be 1 or more.")
    return (range(start, min(start + batch, count)) for start in range(0, count, batch))


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is none of a `Literal`'s; raises InputError."""
    known = get_args(choices)
    if not isinstance(value, str) or value not in known:
        given = repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"
        raise InputError(f"{name} is {given}; it must be {' or '.join(known)}.")
