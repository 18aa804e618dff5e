"""Streaming moments against numpy's direct formulas."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.processes.world import World

CPU = torch.device("cpu")


@pytest.fixture
def values() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20, 3, 2, generator=generator, dtype=torch.float64)


def moments_of(values: Tensor, cuts: tuple[int, ...]) -> Moments:
    moments = Moments(tuple(values.shape[1:]), CPU)
    for part in values.tensor_split(cuts):
        moments.add(part)
    return moments


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4, 17), (5, 5, 10)])
def test_equal_to_the_direct_formulas(values: Tensor, cuts: tuple[int, ...]) -> None:
    moments = moments_of(values, cuts)
    assert moments.count == 20
    np.testing.assert_allclose(moments.mean, values.numpy().mean(0), atol=1e-14)
    np.testing.assert_allclose(moments.variance, values.numpy().var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(moments.standard_error, values.numpy().std(0, ddof=1) / np.sqrt(20), rtol=1e-12)


def test_order_does_not_matter(values: Tensor) -> None:
    shuffled = values[torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(
        moments_of(values, (7,)).variance, moments_of(shuffled, (2, 9)).variance, rtol=1e-12, atol=0
    )


def test_small_variance_on_a_large_mean_survives(values: Tensor) -> None:
    """A sum of squares would have lost every digit of it."""
    shifted = values * 1e-3 + 1e6
    expected = (shifted - 1e6).numpy().var(0, ddof=1)
    np.testing.assert_allclose(moments_of(shifted, (4, 11)).variance, expected, rtol=1e-6)


def test_float32_values_are_accumulated_in_float64() -> None:
    moments = moments_of(torch.tensor([1e8, 1.0, 1.0, 1.0]), (1, 2, 3))
    assert moments.mean.item() == pytest.approx((1e8 + 3) / 4, abs=1e-7)


@pytest.mark.parametrize("count", [0, 1])
def test_no_error_is_stated_below_two_values(values: Tensor, count: int) -> None:
    moments = moments_of(values[:count], ())
    assert moments.count == count
    assert moments.standard_error.isnan().all()


@pytest.mark.parametrize("cut", [9, 20])
def test_processes_together_equal_one(values: Tensor, cut: int, in_worlds: Callable[..., list[Moments]]) -> None:
    """Also when one of them had nothing to do."""

    def of_rank(world: World) -> Moments:
        moments = moments_of(values.tensor_split((cut,))[world.rank], ())
        moments.all_reduce_(world)
        return moments

    alone = moments_of(values, ())
    for moments in in_worlds(2, of_rank):
        assert moments.count == 20
        torch.testing.assert_close(moments.mean, alone.mean, rtol=0, atol=1e-14)
        torch.testing.assert_close(moments.variance, alone.variance, rtol=1e-12, atol=0)
