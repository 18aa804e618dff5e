"""Local bi-Lipschitz geometry of the decoder: how far latents move the image, and what that says about collapse.

A decoder that is bi-Lipschitz with constant L near z moves the image by between 1/L and L times a move of the latents;
a collapsed one does not move it at all (Song, Kim, Lee, "Toward Architecture-Agnostic Local Control of Posterior
Collapse in VAEs", §2–3). docs/bi_lipschitz.md defines every number here, and derives the bounds.

Shapes: B images, C channels, H W resolution, L latent groups, n latents of one group, k singular values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.batches import ExampleNoise, Examples, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE
from vdvae_lr.evaluation.jacobian.decoder_jacobian import (
    Jacobian,
    LatentPoint,
    decoder_jacobian,
    deviation_jacobian,
    movable_numbers,
)
from vdvae_lr.evaluation.jacobian.dense_jacobian import dense_jacobians, deviation_norm, group_slices
from vdvae_lr.evaluation.jacobian.latent_spectrum import LatentSpectrum
from vdvae_lr.evaluation.jacobian.spectrum import (
    LeadingValues,
    LinearMap,
    dense_singular_values,
    leading_singular_values,
    random_vectors,
)
from vdvae_lr.evaluation.noise_response import mean_image
from vdvae_lr.model.precision import float32_convolutions, without_autocast
from vdvae_lr.model.vdvae.decoder import TopDownPass
from vdvae_lr.model.vdvae.vae import VDVAE

DENSE_DIMENSIONS = 1024
LEAST_DEVIATION_STEPS = 20
IMAGES, DERIVATIVES = -2, -1
"""Causes of a `NoGeometryError` besides a latent group, which is its number."""


class NoGeometryError(UnmeasurableError):
    """There is no Jacobian, or no unit for it.

    Args:
        cause: the latent group whose prior has no scale, or what is not finite: `IMAGES`, `DERIVATIVES`. A number, so
            that processes can agree on one.
    """

    def __init__(self, cause: int) -> None:
        remedy = "measure without the Jacobian (0 images)."
        if cause == IMAGES:
            super().__init__(
                "the model's images are not finite numbers; its weights are damaged: choose other weights."
            )
        elif cause == DERIVATIVES:
            super().__init__(f"derivatives of the model are not finite numbers; {remedy}")
        else:
            words = f"the prior of latent group {cause} has a scale of 0 or infinity, so its latents have no unit"
            super().__init__(f"{words}; {remedy}")
        self.cause = cause


@dataclass(frozen=True)
class LocalGeometry:
    """One image's latents in one unit."""

    spectra: tuple[LatentSpectrum, ...]
    """Of every group, top-down, the others given."""
    together: LatentSpectrum
    """Of all groups at once."""
    deviations: tuple[float, ...]
    """‖J_{E∘D} − I‖ of every group; of iterated ones with more than `MAX_STEPS` latents a lower bound."""
    deviations_converged: tuple[bool, ...]
    """Exact, or iterated until the residual was within the tolerance, which does not show that none is larger."""


@dataclass(frozen=True)
class LocalBiLipschitz:
    """What is measured at one image's latents."""

    raw: LocalGeometry
    prior_scale: LocalGeometry
    """Displacements in units of σ_p."""
    clamped_share: float
    """Of the image's numbers whose mean lies beyond [−1, 1]."""


@torch.no_grad()
def local_bi_lipschitz(
    model: VDVAE,
    passed: TopDownPass,
    *,
    values: int = 8,
    tolerance: float = 1e-3,
    dense_dimensions: int | None = None,
) -> tuple[LocalBiLipschitz, ...]:
    """The geometry at the latents of every image of a pass made with `keep_states=True`.

    Args:
        model: that made the pass, on its device.
        passed: B images.
        values: leading singular values wanted; more are kept where they come for nothing.
        tolerance: of iterated values' residuals, relative to the largest.
        dense_dimensions: images of up to so many numbers (None: `DENSE_DIMENSIONS`) have their whole Jacobian made,
            which gives every singular value; larger ones have only the leading values iterated, one image and one unit
            at a time.

    Raises:
        NoGeometryError: images or derivatives that are not finite, or a latent group whose prior has no scale.
    """
    # forward and reverse products must belong to one matrix
    with float32_convolutions(), without_autocast(passed.output.device):
        image = mean_image(model, passed).flatten(1)
        _require_numbers(passed, image)
        movable = movable_numbers(image).sum(1).tolist()
        raw = LatentPoint.of(passed, prior_scale=False)
        scaled = LatentPoint.of(passed, prior_scale=True)
        if image.shape[1] <= (DENSE_DIMENSIONS if dense_dimensions is None else dense_dimensions):
            pairs = [_dense(model, raw, scaled, number) for number in range(raw.batch)]
        else:
            pairs = []
            for number, count in enumerate(movable):
                alone = [point.with_rows(torch.tensor([number], device=image.device)) for point in (raw, scaled)]
                of_raw, of_scaled = (_iterated(model, point, count, values, tolerance) for point in alone)
                pairs.append((of_raw, of_scaled))
    shares = [1 - count / image.shape[1] for count in movable]
    return tuple(LocalBiLipschitz(*pair, share) for pair, share in zip(pairs, shares, strict=True))


def bi_lipschitz(
    model: VDVAE,
    pixels: Tensor,
    *,
    values: int = 8,
    tolerance: float = 1e-3,
    seed: int = 0,
    examples: Examples | None = None,
) -> tuple[LocalBiLipschitz, ...]:
    """The geometry at one posterior draw of each image.

    Args:
        model: on its device.
        pixels: (B, C, H, W) uint8.
        values: leading singular values wanted.
        tolerance: of iterated values' residuals, relative to the largest.
        seed: of the posterior draws (those of `evaluate_bound`).
        examples: the images' numbers in their split, for the noise's key; 0 … B−1 when left out.

    Raises:
        NoGeometryError: as `local_bi_lipschitz`.
    """
    passed = posterior_pass(model, pixels, range(len(pixels)) if examples is None else examples, seed)
    return local_bi_lipschitz(model, passed, values=values, tolerance=tolerance)


@torch.no_grad()
def posterior_pass(model: VDVAE, pixels: Tensor, examples: Examples, seed: int) -> TopDownPass:
    """One posterior draw of each image (B, C, H, W), with states kept."""
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    return model.infer(levels_for(model, pixels), noise, keep_states=True)


@torch.no_grad()
def squared_residuals(model: VDVAE, pixels: Tensor, examples: Examples, seed: int) -> Tensor:
    """Mean square of x − D(z) over an image's numbers, one posterior draw each: (B,), on the target scale.

    The root of its mean over images is the σ under which N(D(z), σ²I) makes them likeliest.
    """
    passed = posterior_pass(model, pixels, examples, seed)
    target = model.pixel_scale.target_from_levels(levels_for(model, pixels))
    return (target - mean_image(model, passed)).square().flatten(1).mean(1)


def iterated_deviation(deviation: LinearMap, tolerance: float) -> LeadingValues:
    """‖J − I‖, as the first of the values: exact for up to `MAX_STEPS` latents, else a lower bound.

    It starts in J's image: where J is of low rank, J − I is −I nearly everywhere, which would end the iteration.

    Args:
        deviation: J − I of each of B maps: (B, n) → (B, n).
        tolerance: of the residual, relative to the value.
    """
    random = random_vectors(deviation.like, deviation.inputs)
    start = deviation.forward(random) + random
    return leading_singular_values(deviation, 1, tolerance, start=start, least_steps=LEAST_DEVIATION_STEPS)


def _require_numbers(passed: TopDownPass, image: Tensor) -> None:
    if not image.isfinite().all():
        raise NoGeometryError(IMAGES)
    for number, group in enumerate(passed.groups):
        scale = group.prior.log_scale.exp()
        if not ((scale > 0) & scale.isfinite()).all():
            raise NoGeometryError(number)


def _dense(model: VDVAE, raw: LatentPoint, scaled: LatentPoint, image: int) -> tuple[LocalGeometry, LocalGeometry]:
    """From the whole Jacobian of one image, whose columns scaled are the other unit's."""
    jacobians = dense_jacobians(model, raw, image)
    if not (jacobians.decoder.isfinite().all() and jacobians.encoder.isfinite().all()):
        raise NoGeometryError(DERIVATIVES)
    parts = group_slices(raw.sizes)

    def geometry(scale: Tensor) -> LocalGeometry:
        matrix = jacobians.decoder.double() * scale
        *spectra, together = [
            LatentSpectrum.of(columns.shape[1], len(columns), dense_singular_values(columns), True)
            for columns in (*(matrix[:, at] for at in parts), matrix)
        ]
        deviations = [deviation_norm(jacobians.decoder[:, at], jacobians.encoder[:, at], scale[at]) for at in parts]
        return LocalGeometry(tuple(spectra), together, tuple(deviations), (True,) * len(parts))

    return geometry(raw.flat_scales[image]), geometry(scaled.flat_scales[image])


def _iterated(model: VDVAE, point: LatentPoint, movable: int, values: int, tolerance: float) -> LocalGeometry:
    """By products alone, of a point of one image: one map's graph at a time."""
    groups = range(len(point.latents))
    spectra, deviations, converged = [], [], []
    for group in groups:
        spectra.append(_iterated_spectrum(model, point, [group], movable, values, tolerance))
        norm, near = _iterated_norm(model, point, group, tolerance)
        deviations.append(norm)
        converged.append(near)
    together = _iterated_spectrum(model, point, groups, movable, values, tolerance)
    return LocalGeometry(tuple(spectra), together, tuple(deviations), tuple(converged))


def _iterated_spectrum(
    model: VDVAE, point: LatentPoint, varied: Sequence[int], movable: int, values: int, tolerance: float
) -> LatentSpectrum:
    jacobian = decoder_jacobian(model, point, varied)
    _require_derivatives(jacobian)
    found = leading_singular_values(jacobian, values, tolerance)
    return LatentSpectrum.of(jacobian.inputs, movable, found.values[0], found.complete, bool(found.converged))


def _iterated_norm(model: VDVAE, point: LatentPoint, group: int, tolerance: float) -> tuple[float, bool]:
    jacobian = deviation_jacobian(model, point, group)
    _require_derivatives(jacobian)
    found = iterated_deviation(jacobian, tolerance)
    return found.values[0, 0].item(), bool(found.converged)


def _require_derivatives(jacobian: Jacobian) -> None:
    if not jacobian.adjoint(torch.ones_like(jacobian.value)).isfinite().all():
        raise NoGeometryError(DERIVATIVES)
