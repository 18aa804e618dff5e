"""Singular values of a linear map that is known by its products only: Golub–Kahan–Lanczos bidiagonalisation.

The map is block diagonal: B maps of one shape, one a row, each with a spectrum of its own. Vectors are orthogonalised
in full against all earlier ones (twice), so that no value is found a second time through rounding.

Shapes: B maps at once, n inputs, m outputs, k steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MAX_STEPS = 100
_BREAKDOWN = 10  # in rounding errors of the largest length so far: a shorter remainder has no direction of its own


class LinearMap(Protocol):
    """B matrices A of one shape, by their products."""

    @property
    def inputs(self) -> int:
        """n."""

    @property
    def outputs(self) -> int:
        """m."""

    @property
    def like(self) -> Tensor:
        """Any tensor whose first dimension is B, of the vectors' type and on their device."""

    def forward(self, vectors: Tensor) -> Tensor:
        """A v for each row: (B, n) → (B, m)."""

    def adjoint(self, vectors: Tensor) -> Tensor:
        """Aᵀ u for each row: (B, m) → (B, n)."""


@dataclass(frozen=True)
class LeadingValues:
    """What the iteration found, each map stopped at its own step, so that its numbers do not depend on the others."""

    values: Tensor
    """(B, k) float64, largest first, zeros after a map's last. The i-th is never above the i-th singular value (but for
    rounding): the bidiagonal matrix is a compression of the map."""
    residuals: Tensor
    """(B, k): some singular value lies within so much of `values`."""
    converged: Tensor
    """(B,): the wanted ones have residuals within the tolerance."""
    steps: Tensor
    """(B,): how many pairs of products each took."""
    complete: bool
    """k is min(m, n): these are all singular values there are."""


def dense_singular_values(matrix: Tensor) -> Tensor:
    """All min(m, n) singular values of a matrix (m, n), largest first, in float64.

    As roots of the smaller Gram matrix's eigenvalues, many times faster than a decomposition of a long matrix; values
    below 1e-7 of the largest are lost in rounding.
    """
    matrix = matrix.double()
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


@torch.no_grad()
def leading_singular_values(
    linear_map: LinearMap, values: int, tolerance: float, max_steps: int = MAX_STEPS, *, exhaust: bool = True
) -> LeadingValues:
    """The largest singular values.

    Args:
        linear_map: A.
        values: how many are wanted.
        tolerance: a value has converged when its residual ‖Aᵀu − s·v‖ is at most so much of the largest value; A·v is
            s·u by construction. A singular value then lies that near. Values nearer to each other than the tolerance
            may be found as one, since every iterate comes from one starting vector.
        max_steps: pairs of products at most.
        exhaust: go on to all singular values there are, where min(m, n) is no more than `max_steps`.
    """
    forward, adjoint, shorter = _from_the_shorter_side(linear_map)
    limit = min(shorter, max_steps)
    complete = exhaust and shorter <= max_steps
    search = _Search(linear_map.like, limit, min(values, limit), tolerance, exhaust=complete)
    right = _start(linear_map.like, shorter)
    lefts: Tensor | None = None
    rights: Tensor | None = None
    for step in range(limit):
        rights = _with_row(rights, right)
        left, alpha = _new_direction(forward(right), lefts, search.largest, 2 * step)
        lefts = _with_row(lefts, left)
        search.extend(alpha)
        right, beta = _new_direction(adjoint(left), rights, search.largest, 2 * step + 1)
        if search.take_in(beta):
            break
    return LeadingValues(search.values, search.residuals, search.converged, search.steps, complete)


def _from_the_shorter_side(
    linear_map: LinearMap,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]:
    """A or Aᵀ, whichever has fewer inputs: there min(m, n) steps exhaust it."""
    if linear_map.outputs < linear_map.inputs:
        return linear_map.adjoint, linear_map.forward, linear_map.outputs
    return linear_map.forward, linear_map.adjoint, linear_map.inputs


def _start(like: Tensor, length: int) -> Tensor:
    """The same unit vector for every map: (B, length)."""
    vector = _random(like, length, -1)
    return vector / vector.norm(dim=1, keepdim=True)


def _random(like: Tensor, length: int, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number + 1)
    vector = torch.randn(length, generator=generator, dtype=torch.float64)
    return vector.to(like.device, like.dtype).expand(like.shape[0], -1)


def _with_row(basis: Tensor | None, vector: Tensor) -> Tensor:
    """(B, k + 1, ·)."""
    return vector[:, None] if basis is None else torch.cat([basis, vector[:, None]], dim=1)


def _orthogonalised(vector: Tensor, basis: Tensor | None) -> Tensor:
    if basis is None:
        return vector
    for _ in range(2):
        shares = torch.einsum("bkn,bn->bk", basis, vector)
        vector = vector - torch.einsum("bkn,bk->bn", basis, shares)
    return vector


def _new_direction(product: Tensor, basis: Tensor | None, largest: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """A unit vector orthogonal to `basis`, (B, ·), and the length (B,) of what the product adds to it.

    A map whose product adds nothing (but rounding) goes on from a random direction: this finds repeated values.
    """
    remainder = _orthogonalised(product, basis)
    length = remainder.norm(dim=1)
    broken = length <= _BREAKDOWN * torch.finfo(length.dtype).eps * largest.to(length.dtype)
    if broken.any():
        fresh = _orthogonalised(_random(product, product.shape[1], number), basis)
        remainder = torch.where(broken[:, None], fresh, remainder)
    norm = remainder.norm(dim=1, keepdim=True)
    return remainder / norm.clamp(min=torch.finfo(norm.dtype).tiny), length.double()


class _Search:
    """The bidiagonal matrices as they grow, and the results of maps that have stopped."""

    def __init__(self, like: Tensor, limit: int, wanted: int, tolerance: float, *, exhaust: bool) -> None:
        batch = like.shape[0]
        self.values = torch.zeros(batch, limit, dtype=torch.float64, device=like.device)
        self.residuals = torch.zeros_like(self.values)
        self.converged = torch.zeros(batch, dtype=torch.bool, device=like.device)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=like.device)
        self.largest = torch.zeros(batch, dtype=torch.float64, device=like.device)
        self._diagonal: list[Tensor] = []
        self._above: list[Tensor] = []
        self._wanted = wanted
        self._exhaust = exhaust
        self._tolerance = tolerance

    def extend(self, alpha: Tensor) -> None:
        """The next diagonal entry: (B,)."""
        self._diagonal.append(alpha)
        self.largest = torch.maximum(self.largest, alpha)

    def take_in(self, beta: Tensor) -> bool:
        """The next entry above the diagonal, (B,); answers whether the iteration may end."""
        matrix = torch.diag_embed(torch.stack(self._diagonal, dim=1))
        if self._above:
            matrix = matrix + torch.diag_embed(torch.stack(self._above, dim=1), offset=1)
        self._above.append(beta)
        left, values, _ = torch.linalg.svd(matrix)
        residuals = beta[:, None] * left[:, -1].abs()
        step = values.shape[1]
        going = torch.ones_like(self.converged) if self._exhaust else ~self.converged
        self.values[:, :step] = torch.where(going[:, None], values, self.values[:, :step])
        self.residuals[:, :step] = torch.where(going[:, None], residuals, self.residuals[:, :step])
        self.steps = torch.where(going, step, self.steps)
        if step >= self._wanted:
            near = (residuals <= self._tolerance * values[:, :1])[:, : self._wanted].all(1)
            self.converged = torch.where(going, near, self.converged)
        return not self._exhaust and bool(self.converged.all())
