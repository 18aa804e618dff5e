"""Iterated singular values against matrices whose spectra are known: decaying, clustered, repeated, zero, tiny.

Shapes: a matrix is (m, n).
"""

import pytest
import torch
from torch import Tensor

from vdvae_lr.evaluation.jacobian.spectrum import LeadingValues, dense_singular_values, leading_singular_values


class Matrix:
    """A matrix that is known by its products, and remembers the vectors it was given."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.value, self.point = matrix[:, 0], matrix[0]
        self.vectors: list[Tensor] = []

    def forward(self, vector: Tensor) -> Tensor:
        self.vectors.append(vector)
        return self.matrix @ vector

    def adjoint(self, vector: Tensor) -> Tensor:
        self.vectors.append(vector)
        return self.matrix.T @ vector


def with_spectrum(values: Tensor, outputs: int, inputs: int) -> Tensor:
    """A matrix with these singular values and random directions."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (outputs, inputs)
    )
    return left * values @ right.T


def found(matrix: Tensor, values: int, tolerance: float = 1e-8, max_steps: int = 100) -> LeadingValues:
    return leading_singular_values(Matrix(matrix), values, tolerance, max_steps)


@pytest.mark.parametrize("shape", [(150, 260), (260, 150)])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_decaying_spectrum_to_the_tolerance(shape: tuple[int, int], tolerance: float) -> None:
    spectrum = 3 * 0.85 ** torch.arange(150, dtype=torch.float64)
    result = found(with_spectrum(spectrum, *shape), 5, tolerance)
    assert result.converged
    assert not result.complete
    assert ((result.values[:5] - spectrum[:5]).abs() <= tolerance * spectrum[0]).all()
    assert (result.residuals[:5] <= tolerance * result.values[0]).all()
    assert (result.values <= spectrum[: len(result.values)] + 1e-12).all()  # none above its own, found or not
    for value, residual in zip(result.values, result.residuals, strict=True):
        assert (spectrum - value).abs().min() <= residual + 1e-12


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_values_and_residuals_are_those_of_the_krylov_space(shape: tuple[int, int]) -> None:
    """By definition: span of (AᵀA)^j v over j < k, Ritz vectors q of AᵀA in it, and ‖AᵀA q − s² q‖/s."""
    matrix = with_spectrum(torch.linspace(2, 0.1, 40, dtype=torch.float64), *shape)
    linear_map = Matrix(matrix)
    result = leading_singular_values(linear_map, 1, 1e-12, max_steps=5)
    gram = matrix.T @ matrix if shape[0] > shape[1] else matrix @ matrix.T
    powers = [linear_map.vectors[0]]
    for _ in range(4):
        powers.append(gram @ powers[-1])
    basis = torch.linalg.qr(torch.stack(powers, dim=1))[0]
    squares, ritz = torch.linalg.eigh(basis.T @ gram @ basis)
    values = squares.sqrt()
    residuals = (gram @ basis @ ritz - basis @ ritz * squares).norm(dim=0) / values
    torch.testing.assert_close(result.values, values.flip(0), rtol=1e-8, atol=0)
    torch.testing.assert_close(result.residuals, residuals.flip(0), rtol=1e-6, atol=0)


def test_tolerance_decides_how_long_it_takes() -> None:
    matrix = with_spectrum(3 * 0.85 ** torch.arange(150, dtype=torch.float64), 150, 260)
    rough, fine = Matrix(matrix), Matrix(matrix)
    leading_singular_values(rough, 3, 0.1)
    steps = len(leading_singular_values(fine, 3, 1e-9).values)
    assert len(rough.vectors) < len(fine.vectors) == 2 * steps


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_repeated_values_are_all_found_where_the_map_is_exhausted(shape: tuple[int, int]) -> None:
    spectrum = torch.tensor([5.0, 5, 5, 3, 3, 1, 1, 1, 1, 0.5] + [0.0] * 30, dtype=torch.float64)
    result = found(with_spectrum(spectrum, *shape), 3)
    assert result.complete
    assert result.converged
    torch.testing.assert_close(result.values, spectrum, rtol=0, atol=1e-12)


def test_repeated_values_without_any_rounding() -> None:
    result = found(2 * torch.eye(6, dtype=torch.float64), 3)
    torch.testing.assert_close(result.values, torch.full((6,), 2.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_cluster_at_the_top_gives_the_largest() -> None:
    cluster = 1 + 1e-4 * torch.linspace(1, 0, 50, dtype=torch.float64)
    spectrum = torch.cat([cluster, torch.linspace(0.2, 0.1, 150, dtype=torch.float64)])
    result = found(with_spectrum(spectrum, 200, 300), 1, 1e-3)
    assert result.converged
    assert abs(result.values[0] - spectrum[0]) <= 1e-3 * spectrum[0]


@pytest.mark.parametrize("shape", [(150, 150), (150, 260), (260, 150)])
def test_start_and_least_steps(shape: tuple[int, int]) -> None:
    """From a singular vector alone no other value is seen, unless the iteration has to go on."""
    matrix = with_spectrum(torch.linspace(2, 1, 150, dtype=torch.float64), *shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    start = 5 * (left[:, 70] if shape[0] < shape[1] else right[70])
    alone = leading_singular_values(Matrix(matrix), 1, 1e-6, start=start)
    assert (len(alone.values), alone.converged) == (1, True)
    assert alone.values[0] == pytest.approx(values[70].item(), rel=1e-9)
    more = leading_singular_values(Matrix(matrix), 1, 10.0, start=start, least_steps=30)
    assert len(more.values) == 30
    assert more.values[0] > 1.9
    nowhere = leading_singular_values(Matrix(matrix), 1, 1e-6, start=torch.zeros_like(start))
    torch.testing.assert_close(nowhere.values, found(matrix, 1, 1e-6).values, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1)])
def test_one_dimension(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = found(matrix, 4)
    assert result.values.shape == (1,)
    assert result.complete
    assert result.converged
    assert result.values.item() == pytest.approx(matrix.norm().item(), rel=1e-12)


@pytest.mark.parametrize("size", [6, 200])
def test_the_zero_map(size: int) -> None:
    result = found(torch.zeros(size, size + 3), 4)
    assert result.converged
    assert (result.values == 0).all()


def test_rank_below_the_values_wanted() -> None:
    spectrum = torch.tensor([2.0, 0.5], dtype=torch.float64)
    result = found(with_spectrum(spectrum, 200, 300), 4)
    assert result.converged
    torch.testing.assert_close(result.values[:4], torch.cat([spectrum, torch.zeros(2)]), rtol=0, atol=1e-10)


def test_too_few_steps_are_owned_up_to() -> None:
    spectrum = torch.linspace(2, 1, 150, dtype=torch.float64)
    result = found(with_spectrum(spectrum, 150, 150), 3, 1e-6, max_steps=5)
    assert not result.converged
    assert len(result.values) == 5
    assert (result.values < spectrum[:5]).all()


def test_single_precision() -> None:
    spectrum = 3 * 0.9 ** torch.arange(150, dtype=torch.float64)
    result = found(with_spectrum(spectrum, 150, 400).float(), 5, 1e-4)
    assert result.converged
    torch.testing.assert_close(result.values[:5], spectrum[:5], rtol=0, atol=1e-4 * 3)


@pytest.mark.parametrize("shape", [(30, 70), (70, 30)])
def test_dense_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.svdvals(matrix.double())
    torch.testing.assert_close(dense_singular_values(matrix), expected, rtol=1e-10, atol=0)
