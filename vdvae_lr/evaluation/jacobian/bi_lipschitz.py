"""Local bi-Lipschitz geometry of the decoder: how far latents move the image, and what that says about collapse.

A decoder that is bi-Lipschitz with constant L near z moves the image by between 1/L and L times a move of the latents.
A collapsed decoder does not move the image at all (Song, Kim, Lee, "Toward Architecture-Agnostic Local Control of
Posterior Collapse in VAEs", §2–3). docs/bi_lipschitz.md defines every number here and derives the bounds.

Shapes: B images, C channels, H W resolution, L latent groups, n latents of one group, N all latents, k singular values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.batches import Examples, posterior_pass
from vdvae_lr.evaluation.jacobian.decoder_jacobian import (
    Jacobian,
    decoder_jacobian,
    dense_jacobians,
    deviation_jacobian,
    deviation_norm,
    movable_numbers,
    one_image,
    units_of,
)
from vdvae_lr.evaluation.jacobian.spectrum import (
    LeadingValues,
    LinearMap,
    dense_singular_values,
    leading_singular_values,
    random_vector,
)
from vdvae_lr.model.latent_model import LatentModel, LatentPass, Latents
from vdvae_lr.model.precision import float32_convolutions, without_autocast

DENSE_DIMENSIONS = 1024
LEAST_DEVIATION_STEPS = 20
RANK_TOLERANCE = 1e-5
_MOVES = 500
IMAGES, DERIVATIVES = -2, -1
"""Causes of a `NoGeometryError` that are not the number of a latent group."""


class NoGeometryError(UnmeasurableError):
    """There is no Jacobian, or no unit for it.

    `cause` is the latent group whose prior has no scale, or what is not finite: `IMAGES`, `DERIVATIVES`. It is a
    number, so that processes can agree on one.
    """

    def __init__(self, cause: int) -> None:
        remedy = "measure without the Jacobian (0 images)."
        sentences = {
            IMAGES: "the model's images are not finite numbers; its weights are damaged: choose other weights.",
            DERIVATIVES: f"derivatives of the model are not finite numbers; {remedy}",
        }
        group = f"the prior of latent group {cause} has a scale of 0 or infinity, so its latents have no unit; {remedy}"
        super().__init__(sentences.get(cause, group))
        self.cause = cause


@dataclass(frozen=True)
class LatentSpectrum:
    """Singular values of the Jacobian of D(z) at one image, with respect to one latent group or all groups."""

    latents: int
    """n."""
    movable: int
    """How many image numbers are not clamped. The rank is at most this."""
    values: Tensor
    """(k,) float64 on the CPU, largest first. Values below `RANK_TOLERANCE` of the largest are set to 0."""
    complete: bool
    """True: these are all values that can differ from 0. False: they are lower bounds of the leading ones, and the
    others are unknown."""
    converged: bool
    """Whether the wanted values are exact or have residuals within the tolerance."""

    @staticmethod
    def of(latents: int, movable: int, values: Tensor, complete: bool, converged: bool = True) -> "LatentSpectrum":
        """From singular values (≥ k,) as they were computed, largest first."""
        values = torch.where(values > RANK_TOLERANCE * values[:1], values, 0.0)
        return LatentSpectrum(latents, movable, values[: min(latents, movable)].cpu(), complete, converged)

    @property
    def largest(self) -> float:
        """The Lipschitz constant of D near z; a lower bound of it unless `complete`."""
        return self.values[0].item() if len(self.values) else 0.0

    @property
    def smallest(self) -> float:
        """The least of the min(n, movable) singular values that can be positive; NaN if it is not known."""
        count = min(self.latents, self.movable)
        if count == 0:
            return 0.0
        return self.values[count - 1].item() if self.complete else math.nan

    @property
    def kappa_min(self) -> float:
        """inf ‖J v‖/‖v‖. It is 0 by rank if there are more latents than movable numbers; NaN if it is not known."""
        return 0.0 if self.latents > self.movable else self.smallest

    @property
    def local_bi_lipschitz(self) -> float:
        """L(z) = max(s_max, 1/κ_min). It is infinite if κ_min is 0, and NaN if κ_min is not known."""
        if self.kappa_min == 0:
            return math.inf
        return math.nan if math.isnan(self.kappa_min) else max(self.largest, 1 / self.kappa_min)

    def bi_lipschitz_of_most(self, share: float) -> float:
        """The least L with which this share of random moves of the latents moves the image by 1/L to L times the move.

        The moves have a uniform direction, from a fixed sequence. NaN if the spectrum is not known, infinite if so many
        moves do not move the image.
        """
        if not self.complete:
            return math.nan
        random = np.random.default_rng(0)
        squares = random.standard_normal((_MOVES, len(self.values))) ** 2
        silent = random.chisquare(unused, _MOVES) if (unused := self.latents - len(self.values)) else 0.0
        response = np.sqrt(squares @ self.values.double().numpy() ** 2 / (squares.sum(1) + silent))
        with np.errstate(divide="ignore"):
            constants = np.maximum(response, 1 / response)
        return float(np.quantile(constants, share, method="higher"))

    @property
    def numerical_rank(self) -> int:
        """How many singular values are above `RANK_TOLERANCE` of the largest; a lower bound unless `complete`."""
        return int((self.values > 0).sum().item())

    def theorem_bound_nats(self, sigma: float) -> float:
        """Σ f(s_i²/σ²)/2 ≤ KL(p(z|x)‖p(z)) with f(t) = log(1+t) − t/(1+t), for a spectrum in units of σ_p.

        Singular values that are missing or too small only lower it.
        """
        return 0.5 * _gain((self.values / sigma).square()).sum().item()

    def constant_bound_nats(self, sigma: float) -> float:
        """The same bound from L(z) alone: n/2 · f(1/(L σ)²). It is 0 if L(z) is infinite, NaN if it is not known."""
        ratio = torch.tensor(1 / (self.local_bi_lipschitz * sigma) ** 2, dtype=torch.float64)
        return 0.5 * self.latents * _gain(ratio).item()


def _gain(ratio: Tensor) -> Tensor:
    """f(t) = log(1+t) − t/(1+t): twice the nats of a direction with signal-to-noise ratio t. It grows with t."""
    return ratio.log1p() - ratio / (1 + ratio)


@dataclass(frozen=True)
class LocalGeometry:
    """One image's geometry, with displacements in one unit."""

    spectra: tuple[LatentSpectrum, ...]
    """One for each group, top-down, with the other groups given."""
    together: LatentSpectrum
    """All groups at once."""
    deviations: tuple[float, ...]
    """‖J_{E∘D} − I‖ of each group. Iterated ones of groups with more than `MAX_STEPS` latents are lower bounds."""
    deviations_converged: tuple[bool, ...]
    """Whether each deviation is exact or has a residual within the tolerance. The latter does not show that no
    singular value is larger."""


@dataclass(frozen=True)
class LocalBiLipschitz:
    """All that is measured at one image's latents."""

    raw: LocalGeometry
    prior_scale: LocalGeometry
    """Displacements in units of σ_p."""
    clamped_share: float
    """The share of the image's numbers whose mean lies beyond [−1, 1]."""


@torch.no_grad()
def local_bi_lipschitz(
    model: LatentModel,
    passed: LatentPass,
    *,
    values: int = 8,
    tolerance: float = 1e-3,
    dense_dimensions: int = DENSE_DIMENSIONS,
) -> tuple[LocalBiLipschitz, ...]:
    """The geometry at the latents of each image of a pass made with `keep_contexts=True`.

    Args:
        model: the model that made the pass.
        passed: a pass of B images.
        values: how many leading singular values are wanted. More are kept if they cost nothing.
        tolerance: the largest residual of an iterated value, as a share of the largest value.
        dense_dimensions: for images of at most so many numbers the whole Jacobian is made, which gives every singular
            value. For larger images only the leading values are iterated, one image and one unit at a time.

    Raises:
        NoGeometryError: images or derivatives are not finite, or a latent group's prior has no scale.
    """
    with float32_convolutions(), without_autocast(model.device):  # all products must be with one matrix
        images = passed.likelihood.mean().flatten(1)
        _require_numbers(passed, images)
        found = []
        for number, image in enumerate(images):
            movable = int(movable_numbers(image).sum())
            at = one_image(passed, number)
            both_units = [units_of(at, prior_scale=prior_scale) for prior_scale in (False, True)]
            if len(image) <= dense_dimensions:
                raw, scaled = _dense(model, at, both_units)
            else:
                raw, scaled = (_iterated(model, at, units, movable, values, tolerance) for units in both_units)
            found.append(LocalBiLipschitz(raw, scaled, 1 - movable / len(image)))
    return tuple(found)


def bi_lipschitz(
    model: LatentModel,
    pixels: Tensor,
    *,
    values: int = 8,
    tolerance: float = 1e-3,
    seed: int = 0,
    examples: Examples | None = None,
) -> tuple[LocalBiLipschitz, ...]:
    """`local_bi_lipschitz` at one posterior draw of each image (B, C, H, W) uint8, the draw of `evaluate_bound`.

    The draw depends on `seed` and on the image's number in its split, `examples`; 0 to B − 1 if that is left out.
    """
    examples = range(len(pixels)) if examples is None else examples
    passed = posterior_pass(model, pixels, examples, seed, keep_contexts=True)
    return local_bi_lipschitz(model, passed, values=values, tolerance=tolerance)


def iterated_deviation(deviation: LinearMap, tolerance: float) -> LeadingValues:
    """‖J − I‖ as the first of the values: exact for up to `MAX_STEPS` latents, otherwise a lower bound.

    The iteration starts in the image of J. If J has low rank, J − I is −I nearly everywhere, and a random start would
    end there. `tolerance` is the largest residual, as a share of the value.
    """
    random = random_vector(deviation.point)
    start = deviation.forward(random) + random
    return leading_singular_values(deviation, 1, tolerance, start=start, least_steps=LEAST_DEVIATION_STEPS)


def _require_numbers(passed: LatentPass, images: Tensor) -> None:
    if not images.isfinite().all():
        raise NoGeometryError(IMAGES)
    for number, prior in enumerate(passed.priors):
        scale = prior.log_scale.exp()
        if not ((scale > 0) & scale.isfinite()).all():
            raise NoGeometryError(number)


def _dense(model: LatentModel, at: Latents, units: Sequence[Sequence[Tensor]]) -> list[LocalGeometry]:
    """The geometry in each of the units: the raw Jacobian is made once, and its columns are multiplied by a unit."""
    decoder, encoder = dense_jacobians(model, at)
    if not (decoder.isfinite().all() and encoder.isfinite().all()):
        raise NoGeometryError(DERIVATIVES)
    sizes = [latent.numel() for latent in at.latents]

    def geometry(scales: Sequence[Tensor]) -> LocalGeometry:
        matrix = decoder.double() * torch.cat(list(scales))
        *spectra, together = [
            LatentSpectrum.of(columns.shape[1], len(columns), dense_singular_values(columns), True)
            for columns in (*matrix.split(sizes, dim=1), matrix)
        ]
        parts = zip(decoder.split(sizes, 1), encoder.split(sizes, 1), scales, strict=True)
        return LocalGeometry(
            tuple(spectra), together, tuple(deviation_norm(*part) for part in parts), (True,) * len(scales)
        )

    return [geometry([unit.flatten() for unit in each]) for each in units]


def _iterated(
    model: LatentModel, at: Latents, units: Sequence[Tensor], movable: int, values: int, tolerance: float
) -> LocalGeometry:
    """The geometry from products alone. Memory holds the graph of one map at a time."""

    def spectrum(varied: Sequence[int]) -> LatentSpectrum:
        jacobian = _finite(decoder_jacobian(model, at, units, varied))
        found = leading_singular_values(jacobian, values, tolerance)
        return LatentSpectrum.of(len(jacobian.point), movable, found.values, found.complete, found.converged)

    groups = range(len(at.latents))
    spectra, deviations = [], []
    for group in groups:
        spectra.append(spectrum([group]))
        deviations.append(iterated_deviation(_finite(deviation_jacobian(model, at, units, group)), tolerance))
    return LocalGeometry(
        tuple(spectra),
        spectrum(groups),
        tuple(found.values[0].item() for found in deviations),
        tuple(found.converged for found in deviations),
    )


def _finite(jacobian: Jacobian) -> Jacobian:
    """The same Jacobian; raises NoGeometryError if derivatives are not finite."""
    if not jacobian.adjoint(torch.ones_like(jacobian.value)).isfinite().all():
        raise NoGeometryError(DERIVATIVES)
    return jacobian
