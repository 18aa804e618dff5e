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
    """B images as latents, and pictures in which some groups have other values.

    Attributes:
        values: z or ε of every group, as `coordinates` says, top-down: (B, Z, R, R) each.

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
        """The mean images of some of the B images, in any order and number, with other values in some groups.

        Args:
            rows: numbers of the images.
            values: values of every group, with a row for each of `rows`.
            first: the groups from this one on take `values`, and the others keep the images' latents; None: all keep.
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
    """The latents and priors of images (B, H, W, C) uint8, `batch` at a time; `posterior_noise` has the rest."""
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

    For mean it is 0, which gives the posterior's mean in every group. For sample it is that of `evaluate_bound`, which
    depends on the seed and on the images' numbers.
    """
    check_choice("latents", latents, PosteriorLatents)
    if latents == "sample":
        return ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    return [model.weight.new_zeros(1, 1, 1, 1).expand(len(examples), *shape) for shape in model.latent_shapes]


def levels_of(model: LatentModel, pictures: Pictures) -> Tensor:
    """Pictures (B, H, W, C) uint8 → levels (B, C, H, W) in the model's number format, on its device."""
    return levels_for(model, torch.from_numpy(pictures).permute(0, 3, 1, 2))


def mean_pictures(model: LatentModel, origins: Sequence[LatentSource], count: int, features: Any = None) -> Pictures:
    """The likelihood's mean images of one pass as `LatentModel.top_down` describes it: (count, H, W, C) uint8."""
    return checked_levels(model, model.top_down(origins, count, features).likelihood.mean())
