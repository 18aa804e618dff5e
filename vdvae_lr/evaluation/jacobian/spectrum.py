"""Singular values: of a whole matrix, and of a linear map of which only products are known.

The latter come from Golub–Kahan–Lanczos bidiagonalisation (Golub and Kahan 1965). Every new vector is orthogonalised
against all earlier ones, so that rounding cannot make a value appear twice.

Unless the map is exhausted, the values found are lower bounds. A small residual shows that some singular value is near;
it does not show that no singular value is larger.

Shapes: m outputs, n inputs, k steps.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_STEPS = 100
_BREAKDOWN = 10  # rounding errors of the largest length so far: a shorter remainder has no direction of its own


class LinearMap(Protocol):
    """A matrix A (m, n) of which only products are known."""

    @property
    def point(self) -> Tensor:
        """Any vector (n,) that A takes. It gives n, the number format and the device."""

    @property
    def value(self) -> Tensor:
        """Any vector (m,) that A returns."""

    def forward(self, vector: Tensor) -> Tensor:
        """A v: (n,) → (m,)."""

    def adjoint(self, vector: Tensor) -> Tensor:
        """Aᵀ u: (m,) → (n,)."""


@dataclass(frozen=True)
class LeadingValues:
    """The result of the iteration after k steps."""

    values: Tensor
    """(k,) float64 on the CPU, largest first. The i-th is at most the i-th singular value, up to rounding, because the
    bidiagonal matrix is a compression of A."""
    residuals: Tensor
    """(k,): some singular value, not always the i-th, is within the i-th residual of the i-th value."""
    converged: bool
    """Whether the wanted values have residuals within the tolerance."""
    complete: bool
    """Whether k is min(m, n): then these are all singular values."""


def dense_singular_values(matrix: Tensor) -> Tensor:
    """All min(m, n) singular values of a matrix (m, n), largest first, in float64.

    They are the roots of the eigenvalues of the smaller Gram matrix. For a long matrix this is many times faster than
    its own decomposition. Values below 1e-7 of the largest are lost in rounding.
    """
    matrix = matrix.double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


@torch.no_grad()
def leading_singular_values(
    linear_map: LinearMap,
    values: int,
    tolerance: float,
    max_steps: int = MAX_STEPS,
    *,
    start: Tensor | None = None,
    least_steps: int = 1,
) -> LeadingValues:
    """The largest singular values: all of them if min(m, n) is at most `max_steps`, otherwise lower bounds.

    All iterates come from one vector. From a start near some singular vectors, the values of these converge before the
    iteration sees larger ones; and it may find values that are closer together than the tolerance as one.

    Args:
        linear_map: A.
        values: how many singular values are wanted.
        tolerance: a value has converged when its residual ‖Aᵀu − s·v‖ is at most this share of the largest value. A·v
            equals s·u by construction.
        max_steps: the iteration ends after this many steps. A step is one product with A and one with Aᵀ.
        start: the direction (min(m, n),) in which the iteration starts; None or 0: a random one.
        least_steps: the iteration does not end earlier, unless the map is exhausted.
    """
    forward, adjoint, shorter, longer = linear_map.forward, linear_map.adjoint, linear_map.point, linear_map.value
    if len(longer) < len(shorter):  # from its shorter side, min(m, n) steps exhaust the map
        forward, adjoint, shorter, longer = adjoint, forward, longer, shorter
    limit = min(len(shorter), max_steps)
    complete = limit == len(shorter)
    wanted = min(values, limit)
    rights, lefts = _Basis(shorter, limit + 1), _Basis(longer, limit)
    bidiagonal = torch.zeros(limit, limit + 1, dtype=torch.float64)
    largest = 0.0
    right, _ = rights.extend(torch.zeros_like(shorter) if start is None else start, largest)
    for step in range(1, limit + 1):
        left, alpha = lefts.extend(forward(right), largest)
        largest = max(largest, alpha)
        right, beta = rights.extend(adjoint(left), largest)
        bidiagonal[step - 1, step - 1 : step + 1] = torch.tensor([alpha, beta], dtype=torch.float64)
        vectors, found, _ = torch.linalg.svd(bidiagonal[:step, :step])
        residuals = beta * vectors[-1].abs()
        converged = bool((residuals[:wanted] <= tolerance * found[0]).all())
        if converged and not complete and step >= max(wanted, least_steps):
            break
    return LeadingValues(found, residuals, converged, complete)


def random_vector(like: Tensor) -> Tensor:
    """A standard normal vector of the same length, type and device as `like`; always the same one."""
    return torch.randn(len(like), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)


class _Basis:
    """At most `limit` orthonormal vectors; `like` gives their length, type and device."""

    def __init__(self, like: Tensor, limit: int) -> None:
        self._vectors = like.new_empty(limit, len(like))  # taken once: growing would copy all vectors at every step
        self._random = random_vector(like)
        self._count = 0

    def extend(self, product: Tensor, largest: float) -> tuple[Tensor, float]:
        """Add a unit vector along the part of `product` outside the span. Return it, and that part's length.

        A length that is only rounding, compared with the `largest` so far, gives a random direction instead: this is
        how repeated singular values are found.
        """
        remainder = self._orthogonalised(product)
        length = remainder.norm().item()
        if length <= _BREAKDOWN * torch.finfo(product.dtype).eps * largest:
            remainder = self._random.roll(self._count)  # a new one each time
        direction = _unit(self._orthogonalised(_unit(remainder)))
        self._vectors[self._count] = direction
        self._count += 1
        return direction, length

    def _orthogonalised(self, vector: Tensor) -> Tensor:
        """The part of `vector` outside the span. Done twice: the rounding errors of the first are not orthogonal."""
        basis = self._vectors[: self._count]
        for _ in range(2):
            vector = vector - basis.T @ (basis @ vector)
        return vector


def _unit(vector: Tensor) -> Tensor:
    return F.normalize(vector, dim=0, eps=torch.finfo(vector.dtype).tiny)
