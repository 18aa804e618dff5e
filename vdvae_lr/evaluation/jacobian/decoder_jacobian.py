"""The Jacobian of the mean image D(z), and of the composite map E_μ∘D, at the latents of one image.

D is the image that people see and that Latent Reconstruction re-encodes. A VDVAE clamps it to [−1, 1], so an image
number whose mean lies beyond has derivative 0. Groups that are not varied keep their latents, as in the noise response:
z_>l is not drawn again from the prior that z_l changes.

A displacement is counted in units: σ_p of each latent, or 1. The Jacobian's columns are in these units.

Shapes: Z latent channels, R a group's resolution; n varied latents, N all latents, m image numbers, r those that are
not clamped; B equal rows of the image. Functions take one vector or B of them: "(…, n)" is (n,) or (B, n).
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from vdvae_lr.evaluation.jacobian.spectrum import dense_singular_values
from vdvae_lr.model.latent_model import LatentModel, Latents

ROWS_AT_ONCE = 64
Function = Callable[[Tensor], Tensor]


class Jacobian:
    """Products with a function's Jacobian J.

    The reverse product Jᵀu is linear in u, so its own reverse product with respect to u is the forward product. Both
    come from kept graphs, and the function (…, n) → (…, m) is computed once, at the point (…, n). With rows, each row
    of the result must depend on the same row of the argument alone.
    """

    def __init__(self, function: Function, point: Tensor) -> None:
        self.point = point.detach().clone().requires_grad_()
        with torch.enable_grad():
            self._result = function(self.point)
            self._cotangent = torch.zeros_like(self._result, requires_grad=True)
        self.value = self._result.detach()
        """The function at the point: (…, m)."""

    @cached_property
    def _pulled_back(self) -> Tensor:
        """Jᵀu as a function of u: (…, n)."""
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(self._result, self.point, self._cotangent, create_graph=True)
        return pulled

    def forward(self, vectors: Tensor) -> Tensor:
        """J v: (…, n) → (…, m)."""
        (product,) = torch.autograd.grad(self._pulled_back, self._cotangent, vectors, retain_graph=True)
        return product

    def adjoint(self, vectors: Tensor) -> Tensor:
        """Jᵀu: (…, m) → (…, n)."""
        (product,) = torch.autograd.grad(self._result, self.point, vectors, retain_graph=True)
        return product


def one_image(passed: Latents, image: int) -> Latents:
    """The latents of one image of a pass with kept contexts, as constants: the point z of all derivatives."""
    return passed.rows([image]).detach()


def units_of(at: Latents, *, prior_scale: bool) -> tuple[Tensor, ...]:
    """One unit of displacement of every latent: σ_p, or 1. (1, Z, R, R) for each group."""
    scales = tuple(prior.log_scale.exp() for prior in at.priors)
    return scales if prior_scale else tuple(torch.ones_like(scale) for scale in scales)


def decoder_jacobian(model: LatentModel, at: Latents, units: Sequence[Tensor], varied: Sequence[int]) -> Jacobian:
    """J of the map from a displacement (n,) of the varied groups' latents to D(z) (m,)."""
    return Jacobian(_decoder(model, at, units, varied), _no_displacement(at, varied))


def deviation_jacobian(model: LatentModel, at: Latents, units: Sequence[Tensor], group: int) -> Jacobian:
    """J_{E∘D} − I: the Jacobian of displacement δ (n,) of one group ↦ μ'(z + δ) − δ, in units of the scale."""
    decode = _decoder(model, at, units, [group])
    scale = units[group].flatten()

    def deviation(displacement: Tensor) -> Tensor:
        return posterior_means(model, at, [group], decode(displacement)) / scale - displacement

    return Jacobian(deviation, _no_displacement(at, [group]))


def _no_displacement(at: Latents, varied: Sequence[int], *rows: int) -> Tensor:
    """0 of shape (n,), or (B, n) with `rows`."""
    return at.latents[0].new_zeros(*rows, sum(at.latents[group][0].numel() for group in varied))


def _decoder(model: LatentModel, at: Latents, units: Sequence[Tensor], varied: Sequence[int]) -> Function:
    sizes = [at.latents[group][0].numel() for group in varied]

    def decode(displacement: Tensor) -> Tensor:
        latents = list(at.latents)
        for group, part in zip(varied, displacement.split(sizes, dim=-1), strict=True):
            latents[group] = latents[group] + units[group] * part.view_as(latents[group])
        image = model.decode(latents).likelihood.mean()
        return image.reshape(*displacement.shape[:-1], -1)

    return decode


def posterior_means(model: LatentModel, at: Latents, groups: Sequence[int], image: Tensor) -> Tensor:
    """E_μ: the groups' posterior means, each given its own z_<l, for images (…, m) on the target scale: (…, n)."""
    features = model.encode_target(image.view(-1, *model.image_shape))
    means = [model.posterior(group, at, features).mean for group in groups]
    return torch.cat([mean.reshape(*image.shape[:-1], -1) for mean in means], dim=-1)


def movable_numbers(image: Tensor) -> Tensor:
    """Which numbers of D(z) are not clamped. The others have derivative 0, and are exactly −1 or 1.

    A likelihood that does not clamp its mean may have numbers beyond; they move.
    """
    return image.abs() != 1


def dense_jacobians(model: LatentModel, at: Latents) -> tuple[Tensor, Tensor]:
    """The whole Jacobians of all groups together at one image, in raw units.

    They are made by r reverse products with the decoder and r forward ones with the encoder, `ROWS_AT_ONCE` at a time.

    Returns:
        ∂D/∂z (r, N), and the transpose of ∂μ'/∂x̂ (r, N) with every group given its own z_<l. The rows of clamped image
        numbers are left out: they are 0.
    """
    groups, rows = range(len(at.latents)), at.rows([0] * ROWS_AT_ONCE)
    decode = _decoder(model, rows, units_of(at, prior_scale=False), groups)
    decoder = Jacobian(decode, _no_displacement(at, groups, ROWS_AT_ONCE))
    encoder = Jacobian(lambda image: posterior_means(model, rows, groups, image), decoder.value)
    nothing = decoder.point.detach()[:0]  # an image may have no movable number at all
    decoder_rows, encoder_rows = [nothing], [nothing]
    for chosen in movable_numbers(decoder.value[0]).nonzero().flatten().split(ROWS_AT_ONCE):
        units = torch.zeros_like(decoder.value)
        units[torch.arange(len(chosen), device=units.device), chosen] = 1
        decoder_rows.append(decoder.adjoint(units)[: len(chosen)])
        encoder_rows.append(encoder.forward(units)[: len(chosen)])
    return torch.cat(decoder_rows), torch.cat(encoder_rows)


def deviation_norm(decoder: Tensor, encoder: Tensor, scale: Tensor) -> float:
    """‖J_{E∘D} − I‖ of one group, exact up to rounding, in float64.

    J maps the span of both matrices' rows into itself, and everything orthogonal to it to 0. So J − I is −I there.
    The matrices are ∂D/∂z_l and ∂μ'_l/∂x̂ transposed, (r, n) each, in raw units. `scale` (n,) is the unit of the result.
    """
    decoder, encoder = decoder.double() * scale, encoder.double() / scale
    if decoder.shape[1] <= 2 * len(decoder):
        return _largest(decoder.T @ encoder - torch.eye(len(scale), dtype=decoder.dtype, device=decoder.device))
    span = torch.linalg.qr(torch.cat([decoder, encoder]).T)[0]  # (n, 2r)
    inside = (span.T @ decoder.T) @ (encoder @ span)
    return max(1.0, _largest(inside - torch.eye(len(inside), dtype=inside.dtype, device=inside.device)))


def _largest(matrix: Tensor) -> float:
    """The largest singular value; 0 if the matrix is empty."""
    return dense_singular_values(matrix)[0].item() if matrix.numel() else 0.0
