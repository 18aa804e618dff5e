"""Singular values of a linear map that is known by its products only: Golub–Kahan–Lanczos bidiagonalisation.

The map is block diagonal: B maps of one shape, one a row, each with a spectrum of its own. Vectors are orthogonalised
in full against all earlier ones, so that no value is found a second time through rounding.

Unless the map is exhausted, what is found are lower bounds: a small residual shows that some singular value is near,
never that none is larger.

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
    """(B, k): some singular value, not always the i-th, lies within so much of the i-th of `values`."""
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
    linear_map: LinearMap,
    values: int,
    tolerance: float,
    max_steps: int = MAX_STEPS,
    *,
    start: Tensor | None = None,
    least_steps: int = 1,
) -> LeadingValues:
    """The largest singular values: all there are where min(m, n) is at most `max_steps`, else lower bounds.

    Args:
        linear_map: A.
        values: how many are wanted.
        tolerance: a value has converged when its residual ‖Aᵀu − s·v‖ is at most so much of the largest value; A·v is
            s·u by construction. From a start near some singular vectors, their values converge before larger ones are
            seen; and values nearer to each other than the tolerance may be found as one, since every iterate comes
            from one vector.
        max_steps: pairs of products at most.
        start: where it begins, of any length: (B, min(m, n)); None: at random.
        least_steps: pairs of products before the iteration may end.
    """
    forward, adjoint, shorter = _from_the_shorter_side(linear_map)
    limit = min(shorter, max_steps)
    search = _Search(linear_map.like, limit, min(values, limit), tolerance, least_steps, exhaust=limit == shorter)
    lefts = _Basis(linear_map.like, limit, max(linear_map.inputs, linear_map.outputs))
    rights = _Basis(linear_map.like, limit, shorter)
    right = rights.start(start)
    for _ in range(limit):
        rights.append(right)
        left, alpha = lefts.new_direction(forward(right), search.largest)
        lefts.append(left)
        search.extend(alpha)
        right, beta = rights.new_direction(adjoint(left), search.largest)
        if search.take_in(beta):
            break
    return LeadingValues(search.values, search.residuals, search.converged, search.steps, limit == shorter)


def random_vectors(like: Tensor, length: int) -> Tensor:
    """One standard normal vector for all maps, always the same: (B, length)."""
    vector = torch.randn(length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return vector.to(like.device, like.dtype).expand(like.shape[0], -1)


def _from_the_shorter_side(
    linear_map: LinearMap,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]:
    """A or Aᵀ, whichever has fewer inputs: there min(m, n) steps exhaust it."""
    if linear_map.outputs < linear_map.inputs:
        return linear_map.adjoint, linear_map.forward, linear_map.outputs
    return linear_map.forward, linear_map.adjoint, linear_map.inputs


class _Basis:
    """Orthonormal vectors of every map, their room taken once: (B, limit, length)."""

    def __init__(self, like: Tensor, limit: int, length: int) -> None:
        self._room = torch.empty(like.shape[0], limit, length, dtype=like.dtype, device=like.device)
        self._random = random_vectors(like, length)
        self._count = 0

    def start(self, vectors: Tensor | None) -> Tensor:
        """A unit vector along each of these; at random where there is none, or it is 0."""
        if vectors is None:
            return _unit(self._random)
        return _unit(torch.where(vectors.norm(dim=1, keepdim=True) > 0, vectors, self._random))

    def append(self, vectors: Tensor) -> None:
        """One more: (B, length)."""
        self._room[:, self._count] = vectors
        self._count += 1

    def new_direction(self, product: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
        """A unit vector orthogonal to all, (B, length), and the length (B,) of what the product adds to them.

        A map whose product adds nothing (but rounding) goes on from a random direction: this finds repeated values.
        """
        remainder = self._orthogonalised(product)
        length = remainder.norm(dim=1)
        broken = length <= _BREAKDOWN * torch.finfo(length.dtype).eps * largest.to(length.dtype)
        fresh = self._random.roll(self._count + 1, dims=1)  # another each time, and nothing asked of the device
        direction = self._orthogonalised(torch.where(broken[:, None], fresh, _unit(remainder)))
        return _unit(direction), length.double()

    def _orthogonalised(self, vectors: Tensor) -> Tensor:
        """Twice: the first time's rounding errors are not orthogonal."""
        basis = self._room[:, : self._count]
        for _ in range(2):
            shares = torch.einsum("bkn,bn->bk", basis, vectors)
            vectors = vectors - torch.einsum("bkn,bk->bn", basis, shares)
        return vectors


def _unit(vectors: Tensor) -> Tensor:
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / norm.clamp(min=torch.finfo(norm.dtype).tiny)


class _Search:
    """The bidiagonal matrices as they grow, and the results of maps that have stopped."""

    def __init__(
        self, like: Tensor, limit: int, wanted: int, tolerance: float, least_steps: int, *, exhaust: bool
    ) -> None:
        batch = like.shape[0]
        self.values = torch.zeros(batch, limit, dtype=torch.float64, device=like.device)
        self.residuals = torch.zeros_like(self.values)
        self.converged = torch.zeros(batch, dtype=torch.bool, device=like.device)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=like.device)
        self.largest = torch.zeros(batch, dtype=torch.float64, device=like.device)
        self._diagonal: list[Tensor] = []
        self._above: list[Tensor] = []
        self._wanted = wanted
        self._least_steps = min(least_steps, limit)
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
        if step >= max(self._wanted, self._least_steps):
            near = (residuals <= self._tolerance * values[:, :1])[:, : self._wanted].all(1)
            self.converged = torch.where(going, near, self.converged)
        return not self._exhaust and bool(self.converged.all())
