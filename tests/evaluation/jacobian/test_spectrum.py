"""Iterated singular values against matrices whose spectra are known: decaying, clustered, repeated, zero, tiny.

Shapes: B matrices (B, m, n).
"""

import pytest
import torch
from torch import Tensor

from vdvae_lr.evaluation.jacobian.spectrum import LeadingValues, dense_singular_values, leading_singular_values


class Matrices:
    """B matrices by their products, which are remembered."""

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices
        self.like = matrices
        self.outputs, self.inputs = matrices.shape[1:]
        self.vectors: list[Tensor] = []

    @property
    def products(self) -> int:
        return len(self.vectors)

    def forward(self, vectors: Tensor) -> Tensor:
        self.vectors.append(vectors)
        return torch.einsum("bmn,bn->bm", self.matrices, vectors)

    def adjoint(self, vectors: Tensor) -> Tensor:
        self.vectors.append(vectors)
        return torch.einsum("bmn,bm->bn", self.matrices, vectors)


def with_spectrum(values: Tensor, outputs: int, inputs: int, seed: int = 0) -> Tensor:
    """A matrix (1, m, n) with these singular values and random directions."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (outputs, inputs)
    )
    return (left * values @ right.T)[None]


def found(matrices: Tensor, values: int, tolerance: float = 1e-8, max_steps: int = 100) -> LeadingValues:
    return leading_singular_values(Matrices(matrices), values, tolerance, max_steps)


@pytest.mark.parametrize("shape", [(150, 260), (260, 150)])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_decaying_spectrum_to_the_tolerance(shape: tuple[int, int], tolerance: float) -> None:
    spectrum = 3 * 0.85 ** torch.arange(150, dtype=torch.float64)
    result = found(with_spectrum(spectrum, *shape), 5, tolerance)
    error = (result.values[0, :5] - spectrum[:5]).abs()
    assert result.converged.all()
    assert not result.complete
    assert (error <= tolerance * spectrum[0]).all()
    assert (result.residuals[0, :5] <= tolerance * result.values[0, 0]).all()
    assert (result.values[0] <= spectrum[: result.values.shape[1]] + 1e-12).all()  # none above its own, found or not
    for value, residual in zip(result.values[0, : result.steps], result.residuals[0, : result.steps], strict=True):
        assert (spectrum - value).abs().min() <= residual + 1e-12


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_values_and_residuals_are_those_of_the_krylov_space(shape: tuple[int, int]) -> None:
    """By definition: span of (AᵀA)^j v over j < k, Ritz vectors q of AᵀA in it, and ‖AᵀA q − s² q‖/s."""
    matrix = with_spectrum(torch.linspace(2, 0.1, 40, dtype=torch.float64), *shape)
    linear_map = Matrices(matrix)
    result = leading_singular_values(linear_map, 1, 1e-12, max_steps=5)
    gram = matrix[0].T @ matrix[0] if shape[0] > shape[1] else matrix[0] @ matrix[0].T
    powers = [linear_map.vectors[0][0]]
    for _ in range(4):
        powers.append(gram @ powers[-1])
    basis = torch.linalg.qr(torch.stack(powers, dim=1))[0]
    squares, ritz = torch.linalg.eigh(basis.T @ gram @ basis)
    values = squares.sqrt()
    residuals = (gram @ basis @ ritz - basis @ ritz * squares).norm(dim=0) / values
    torch.testing.assert_close(result.values[0], values.flip(0), rtol=1e-8, atol=0)
    torch.testing.assert_close(result.residuals[0], residuals.flip(0), rtol=1e-6, atol=0)


def test_tolerance_decides_how_long_it_takes() -> None:
    matrix = with_spectrum(3 * 0.85 ** torch.arange(150, dtype=torch.float64), 150, 260)
    rough, fine = Matrices(matrix), Matrices(matrix)
    leading_singular_values(rough, 3, 0.1)
    steps = leading_singular_values(fine, 3, 1e-9).steps.item()
    assert rough.products < fine.products == 2 * steps


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_repeated_values_are_all_found_where_the_map_is_exhausted(shape: tuple[int, int]) -> None:
    spectrum = torch.tensor([5.0, 5, 5, 3, 3, 1, 1, 1, 1, 0.5] + [0.0] * 30, dtype=torch.float64)
    result = found(with_spectrum(spectrum, *shape), 3)
    assert result.complete
    assert result.converged.all()
    torch.testing.assert_close(result.values[0], spectrum, rtol=0, atol=1e-12)


def test_repeated_values_without_any_rounding() -> None:
    result = found(2 * torch.eye(6, dtype=torch.float64)[None], 3)
    torch.testing.assert_close(result.values[0], torch.full((6,), 2.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_cluster_at_the_top_gives_the_largest() -> None:
    cluster = 1 + 1e-4 * torch.linspace(1, 0, 50, dtype=torch.float64)
    spectrum = torch.cat([cluster, torch.linspace(0.2, 0.1, 150, dtype=torch.float64)])
    result = found(with_spectrum(spectrum, 200, 300), 1, 1e-3)
    assert result.converged.all()
    assert abs(result.values[0, 0] - spectrum[0]) <= 1e-3 * spectrum[0]


@pytest.mark.parametrize("shape", [(150, 150), (150, 260), (260, 150)])
def test_start_and_least_steps(shape: tuple[int, int]) -> None:
    """From a singular vector alone no other value is seen, unless the iteration has to go on."""
    matrix = with_spectrum(torch.linspace(2, 1, 150, dtype=torch.float64), *shape)
    left, values, right = torch.linalg.svd(matrix[0], full_matrices=False)
    start = 5 * (left[:, 70] if shape[0] < shape[1] else right[70])[None]
    alone = leading_singular_values(Matrices(matrix), 1, 1e-6, start=start)
    assert (alone.steps.item(), alone.converged.item()) == (1, True)
    assert alone.values[0, 0] == pytest.approx(values[70].item(), rel=1e-9)
    more = leading_singular_values(Matrices(matrix), 1, 10.0, start=start, least_steps=30)
    assert more.steps.item() == 30
    assert more.values[0, 0] > 1.9
    nowhere = leading_singular_values(Matrices(matrix), 1, 1e-6, start=torch.zeros_like(start))
    torch.testing.assert_close(nowhere.values[0], found(matrix, 1, 1e-6).values[0], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_one_dimension(shape: tuple[int, int]) -> None:
    matrix = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = found(matrix, 4)
    assert result.values.shape == (1, 1)
    assert result.complete
    assert result.converged.all()
    assert result.values.item() == pytest.approx(matrix.norm().item(), rel=1e-12)


@pytest.mark.parametrize("size", [6, 200])
def test_the_zero_map(size: int) -> None:
    result = found(torch.zeros(2, size, size + 3), 4)
    assert result.converged.all()
    assert (result.values == 0).all()


def test_rank_below_the_values_wanted() -> None:
    spectrum = torch.tensor([2.0, 0.5], dtype=torch.float64)
    result = found(with_spectrum(spectrum, 200, 300), 4)
    assert result.converged.all()
    torch.testing.assert_close(result.values[0, :4], torch.cat([spectrum, torch.zeros(2)]), rtol=0, atol=1e-10)


def test_a_map_stops_by_itself() -> None:
    easy = with_spectrum(0.3 ** torch.arange(120, dtype=torch.float64), 120, 150)
    hard = with_spectrum(torch.linspace(2, 1, 120, dtype=torch.float64), 120, 150, seed=1)
    both = found(torch.cat([easy, hard]), 3, 1e-3)
    assert both.steps[0] < both.steps[1]
    for row, matrix in enumerate((easy, hard)):
        alone = found(matrix, 3, 1e-3)
        assert alone.steps[0] == both.steps[row]
        torch.testing.assert_close(alone.values[0], both.values[row], rtol=0, atol=1e-10)


def test_too_few_steps_are_owned_up_to() -> None:
    spectrum = torch.linspace(2, 1, 150, dtype=torch.float64)
    result = found(with_spectrum(spectrum, 150, 150), 3, 1e-6, max_steps=5)
    assert not result.converged.any()
    assert result.steps.item() == 5
    assert (result.values[0] < spectrum[:5]).all()


def test_single_precision() -> None:
    spectrum = 3 * 0.9 ** torch.arange(150, dtype=torch.float64)
    result = found(with_spectrum(spectrum, 150, 400).float(), 5, 1e-4)
    assert result.converged.all()
    torch.testing.assert_close(result.values[0, :5], spectrum[:5], rtol=0, atol=1e-4 * 3)


@pytest.mark.parametrize("shape", [(30, 70), (70, 30)])
def test_dense_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.svdvals(matrix.double())
    torch.testing.assert_close(dense_singular_values(matrix), expected, rtol=1e-10, atol=0)
