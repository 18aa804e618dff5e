"""Latents of images, and pictures with some of them changed: what interpolating, traversing and swapping share.

The latents of a group can be written in two kinds of coordinates:

- latents: z_l itself. If z_l changes, the other groups keep their numbers.
- standardised: ε_l = (z_l − μ_p,l(z_<l)) / σ_p,l(z_<l). The prior of ε is N(0, I) over all groups at once, and the map
  between ε and z is one to one (ancestral sampling). If ε_l is kept while z_<l changes, z_l moves along with its prior:
  the finer groups follow the coarser ones.

Shapes: B images, C channels, H W resolution, L latent groups of (Z, R, R).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, ExampleNoise, Examples, levels_for
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import FromPrior, Given, LatentModel, Latents, LatentSource
from vdvae_lr.pictures.images import Pictures, check_choice, checked_levels, in_batches

Coordinates = Literal["standardised", "latents"]
PosteriorLatents = Literal["mean", "sample"]


class EditableImages:
    """Images as latents in some coordinates, and pictures in which some groups have other values.

    Args:
        code: the latents and priors of B images.
        coordinates: the coordinates of `values`.

    Attributes:
        values: z or ε of every group, top-down: (B, Z, R, R) each.

    Raises:
        InputError: the model's latents are not finite, or a prior has no width and therefore no standardised values.
    """

    def __init__(self, model: LatentModel, code: Latents, coordinates: Coordinates) -> None:
        check_choice("coordinates", coordinates, Coordinates)
        self._model, self._code = model, code
        self._given: type[Given | FromPrior] = Given if coordinates == "latents" else FromPrior
        pairs = enumerate(zip(code.latents, code.priors, strict=True))
        self.values = tuple(_values(group, latent, prior, coordinates) for group, (latent, prior) in pairs)

    def pictures(self, rows: Sequence[int], values: Sequence[Tensor] = (), first: int | None = None) -> Pictures:
        """The mean images of some of the images, with other values in the groups from `first` on.

        Args:
            rows: which images, each any number of times.
            values: of every group, a row for each of `rows`; those before `first` are not used.
            first: the first group that takes its values from `values`; None: no group does.

        Raises:
            InputError: the decoder makes no image of these values.
        """
        own: list[LatentSource] = [Given(latent) for latent in self._code.rows(rows).latents[:first]]
        others = [self._given(value) for value in values[first:]]
        return mean_pictures(self._model, [*own, *others], len(rows))


def _values(group: int, latent: Tensor, prior: DiagonalGaussian, coordinates: Coordinates) -> Tensor:
    scale = prior.log_scale.exp()
    if not all(bool(tensor.isfinite().all()) for tensor in (latent, prior.mean, scale)):
        raise InputError(
            f"latent group {group} or its prior is not finite (NaN or infinite) before anything is changed; "
            "try other images, a lower temperature, or other weights."
        )
    if coordinates == "latents":
        return latent
    noise = (latent - prior.mean) / scale
    if not bool(noise.isfinite().all()):
        raise InputError(
            f"latent group {group} has a prior of zero variance, or nearly so, and no standardised values; choose "
            "coordinates latents."
        )
    return noise


def infer_code(model: LatentModel, pictures: Pictures, latents: PosteriorLatents, seed: int, batch: int) -> Latents:
    """The latents and priors of images (B, H, W, C) uint8; `latents` and `seed` as in `posterior_noise`.

    Raises:
        InputError: `batch`, the number of images at once, is below 1.
    """
    codes = [
        model.infer(levels_of(model, pictures[rows]), posterior_noise(model, latents, seed, rows))
        for rows in in_batches(range(len(pictures)), batch)
    ]
    groups = range(len(codes[0].latents))
    means = (torch.cat([code.priors[group].mean for code in codes]) for group in groups)
    log_scales = (torch.cat([code.priors[group].log_scale for code in codes]) for group in groups)
    joined = tuple(torch.cat([code.latents[group] for code in codes]) for group in groups)
    return Latents(joined, tuple(map(DiagonalGaussian, means, log_scales)), (), ())


def posterior_noise(model: LatentModel, latents: PosteriorLatents, seed: int, examples: Examples) -> Sequence[Tensor]:
    """Noise for `LatentModel.infer`, (B, Z, R, R) for each group.

    Args:
        latents: mean: zeros, which give the posterior's mean in every group; sample: the draws of `evaluate_bound`.
        seed: seed of these draws.
        examples: the images' numbers, on which the draws depend.
    """
    check_choice("latents", latents, PosteriorLatents)
    if latents == "sample":
        return ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    return [model.weight.new_zeros(1, 1, 1, 1).expand(len(examples), *shape) for shape in model.latent_shapes]


def levels_of(model: LatentModel, pictures: Pictures) -> Tensor:
    """Pictures (B, H, W, C) uint8 → levels (B, C, H, W) in the model's number format, on its device."""
    return levels_for(model, torch.from_numpy(pictures).permute(0, 3, 1, 2))


def mean_pictures(model: LatentModel, sources: Sequence[LatentSource], count: int, features: Any = None) -> Pictures:
    """The likelihood's mean images of one top-down pass: (count, H, W, C) uint8.

    Args:
        sources: where each group's latents come from, top-down.
        count: number of images.
        features: the encoder's features of the images, for sources that are the posterior.

    Raises:
        InputError: as `checked_levels`.
    """
    return checked_levels(model, model.top_down(sources, count, features).likelihood.mean())
