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

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import ExampleNoise, Examples, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE
from vdvae_lr.evaluation.decoder_jacobian import (
    LatentPoint,
    decoder_jacobian,
    deviation_jacobian,
    exact_products,
    movable_numbers,
)
from vdvae_lr.evaluation.dense_jacobian import DenseDeviation, dense_jacobians, group_slices
from vdvae_lr.evaluation.latent_spectrum import LatentSpectrum
from vdvae_lr.evaluation.noise_response import mean_image
from vdvae_lr.evaluation.spectrum import LinearMap, dense_singular_values, leading_singular_values
from vdvae_lr.model.decoder import TopDownPass
from vdvae_lr.model.vae import VDVAE

DENSE_DIMENSIONS = 1024


@dataclass(frozen=True)
class LocalGeometry:
    """One image's latents in one unit."""

    spectra: tuple[LatentSpectrum, ...]
    """Of every group, top-down, the others given."""
    together: LatentSpectrum
    """Of all groups at once."""
    deviations: tuple[float, ...]
    """‖J_{E∘D} − I‖ of every group."""
    deviations_converged: tuple[bool, ...]


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
        tolerance: of iterated values, relative to the largest.
        dense_dimensions: images of up to so many numbers (None: `DENSE_DIMENSIONS`) have their whole Jacobian made,
            which gives every singular value; larger ones have only the leading values iterated.

    Raises:
        InputError: NaN in the weights, or a latent group whose prior has no scale.
    """
    with exact_products(passed.output.device):
        image = mean_image(model, passed).flatten(1)
        _require_numbers(passed, image)
        movable = movable_numbers(image).sum(1).tolist()
        raw = LatentPoint.of(passed, prior_scale=False)
        scaled = LatentPoint.of(passed, prior_scale=True)
        if image.shape[1] <= (DENSE_DIMENSIONS if dense_dimensions is None else dense_dimensions):
            pairs = [_dense(model, raw, scaled, number, tolerance) for number in range(raw.batch)]
        else:
            found = _iterated(model, raw.beside(scaled), movable * 2, values, tolerance)
            pairs = list(zip(found[: raw.batch], found[raw.batch :], strict=True))
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
        tolerance: of iterated values, relative to the largest.
        seed: of the posterior draws (those of `evaluate_bound`).
        examples: the images' numbers in their split, for the noise's key; 0 … B−1 when left out.

    Raises:
        InputError: as `local_bi_lipschitz`.
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


def _require_numbers(passed: TopDownPass, image: Tensor) -> None:
    if not image.isfinite().all():
        raise InputError("the model's images are not finite numbers; its weights are damaged: choose other weights.")
    for number, group in enumerate(passed.groups):
        scale = group.prior.log_scale.exp()
        if not ((scale > 0) & scale.isfinite()).all():
            raise InputError(
                f"the prior of latent group {number} has a scale of 0 or infinity, so its latents have no unit; "
                "measure without the Jacobian (0 images)."
            )


def _dense(
    model: VDVAE, raw: LatentPoint, scaled: LatentPoint, image: int, tolerance: float
) -> tuple[LocalGeometry, LocalGeometry]:
    """From the whole Jacobian of one image, whose columns scaled are the other unit's."""
    jacobians = dense_jacobians(model, raw, image)
    parts = group_slices(raw.sizes)

    def geometry(scale: Tensor) -> LocalGeometry:
        matrix = jacobians.decoder.double() * scale
        *spectra, together = [
            LatentSpectrum.of(columns.shape[1], len(columns), dense_singular_values(columns), True)
            for columns in (*(matrix[:, at] for at in parts), matrix)
        ]
        deviations = [
            _norms(DenseDeviation(jacobians.decoder[:, at], jacobians.encoder[:, at], scale[at]), tolerance)[0]
            for at in parts
        ]
        return LocalGeometry(tuple(spectra), together, *_columns(deviations))

    return geometry(raw.flat_scales[image]), geometry(scaled.flat_scales[image])


def _columns(deviations: Sequence[tuple[float, bool]]) -> tuple[tuple[float, ...], tuple[bool, ...]]:
    return tuple(norm for norm, _ in deviations), tuple(converged for _, converged in deviations)


def _norms(linear_map: LinearMap, tolerance: float) -> list[tuple[float, bool]]:
    """The largest singular value of each of B maps, and whether it has converged."""
    found = leading_singular_values(linear_map, 1, tolerance, exhaust=False)
    return list(zip(found.values[:, 0].tolist(), found.converged.tolist(), strict=True))


def _iterated(
    model: VDVAE, point: LatentPoint, movable: Sequence[int], values: int, tolerance: float
) -> list[LocalGeometry]:
    """By products alone, all images of the point at once."""
    groups = range(len(point.latents))
    spectra = [_iterated_spectra(model, point, [group], movable, values, tolerance) for group in groups]
    together = _iterated_spectra(model, point, groups, movable, values, tolerance)
    deviations = [_norms(deviation_jacobian(model, point, group), tolerance) for group in groups]
    return [
        LocalGeometry(tuple(of[row] for of in spectra), together[row], *_columns([of[row] for of in deviations]))
        for row in range(point.batch)
    ]


def _iterated_spectra(
    model: VDVAE, point: LatentPoint, varied: Sequence[int], movable: Sequence[int], values: int, tolerance: float
) -> list[LatentSpectrum]:
    jacobian = decoder_jacobian(model, point, varied)
    found = leading_singular_values(jacobian, values, tolerance)
    return [
        LatentSpectrum.of(jacobian.inputs, count, of_image, found.complete, bool(converged))
        for count, of_image, converged in zip(movable, found.values, found.converged, strict=True)
    ]
