"""The whole Jacobian of a small image: every singular value of every group comes from one sweep over its numbers.

Shapes: R rows at once, Z latent channels; m image numbers, r movable ones, n latents of a group, N of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vdvae_lr.evaluation.jacobian.decoder_jacobian import (
    Jacobian,
    LatentPoint,
    decoder_jacobian,
    movable_numbers,
    posterior_means,
)
from vdvae_lr.evaluation.jacobian.spectrum import dense_singular_values
from vdvae_lr.model.latent_model import LatentModel

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class DenseJacobians:
    """One image's matrices in the point's own units, over its r movable image numbers alone: D's other rows are 0."""

    decoder: Tensor
    """∂D/∂z (r, N)."""
    encoder: Tensor
    """∂μ'/∂x̂ transposed, every group given its own z_<l, in raw units: (r, N)."""


def dense_jacobians(model: LatentModel, point: LatentPoint, image: int) -> DenseJacobians:
    """r reverse products through the decoder and r forward ones through the encoder, for all groups at once.

    Args:
        model: on its device.
        point: of any number of images.
        image: which of them.
    """
    repeated = point.with_rows(torch.full((ROWS_AT_ONCE,), image, device=point.latents[0].device))
    groups = range(len(repeated.latents))
    decoder = decoder_jacobian(model, repeated, groups)
    mean = decoder.value
    encoder = Jacobian(lambda image: posterior_means(model, repeated, groups, image), mean)
    nothing = mean.new_zeros(0, decoder.inputs)  # an image may have no movable number at all
    decoder_rows, encoder_rows = [nothing], [nothing]
    for chosen in movable_numbers(mean[0]).nonzero().flatten().split(ROWS_AT_ONCE):
        units = torch.zeros_like(mean)
        units[torch.arange(len(chosen), device=mean.device), chosen] = 1
        decoder_rows.append(decoder.adjoint(units)[: len(chosen)])
        encoder_rows.append(encoder.forward(units)[: len(chosen)])
    return DenseJacobians(torch.cat(decoder_rows), torch.cat(encoder_rows))


def group_slices(sizes: Sequence[int]) -> list[slice]:
    """Where every group's latents lie in a row of all N."""
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return [slice(start, end) for start, end in pairwise(ends)]


def deviation_norm(decoder: Tensor, encoder: Tensor, scale: Tensor) -> float:
    """‖J_{E∘D} − I‖ of one group, exact but for rounding, in float64.

    J maps the span of both matrices' rows into itself and what is orthogonal to them to 0, so J − I there is −I.

    Args:
        decoder: ∂D/∂z_l (r, n), raw.
        encoder: ∂μ'_l/∂x̂ transposed (r, n), raw.
        scale: (n,), the unit.
    """
    decoder, encoder = decoder.double() * scale, encoder.double() / scale
    if decoder.shape[1] <= 2 * len(decoder):
        return _norm(decoder.T @ encoder - torch.eye(len(scale), dtype=decoder.dtype, device=decoder.device))
    span = torch.linalg.qr(torch.cat([decoder, encoder]).T)[0]  # (n, 2r)
    inside = (span.T @ decoder.T) @ (encoder @ span)
    return max(1.0, _norm(inside - torch.eye(len(inside), dtype=inside.dtype, device=inside.device)))


def _norm(matrix: Tensor) -> float:
    """The largest singular value; 0 of no matrix."""
    return dense_singular_values(matrix)[0].item() if matrix.numel() else 0.0
