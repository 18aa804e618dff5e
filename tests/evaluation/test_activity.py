"""Active latents against numpy's direct formula, in any order and over processes."""

from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.activity import Activity, LatentStatistics, mean_path, mean_prior_scale, measure_activity
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.vae import VDVAE

BatchMaker = Callable[..., list[Batch]]
SHAPES = ((2, 1, 1), (2, 4, 4))
CPU = torch.device("cpu")


@pytest.fixture
def groups() -> list[tuple[DiagonalGaussian, DiagonalGaussian]]:
    """Posteriors and priors of two groups for 30 images; variances on both sides of 0.01 and of 0.01 of the prior's."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    found = []
    for shape in SHAPES:
        mean = 3 + normal(30, *shape) * (0.1 * (0.8 * normal(*shape)).exp())
        found.append((DiagonalGaussian(mean, torch.zeros_like(mean)), DiagonalGaussian(mean, normal(30, *shape))))
    return found


def statistics_of(groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], shards: list[list[int]]) -> LatentStatistics:
    statistics = LatentStatistics(SHAPES, CPU)
    for rows in shards:
        chosen = [[DiagonalGaussian(g.mean[rows], g.log_scale[rows]) for g in pair] for pair in groups]
        statistics.add([pair[0] for pair in chosen], [pair[1] for pair in chosen])
    return statistics


def direct(groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], threshold: float) -> Activity:
    variances = [posterior.mean.numpy().var(0, ddof=1) for posterior, _ in groups]
    priors = [np.exp(2 * prior.log_scale.numpy()).mean(0) for _, prior in groups]

    def share(values: list[np.ndarray]) -> float:
        return float((np.concatenate([value.ravel() for value in values]) >= threshold).mean())

    by_channel = [(v.mean((1, 2)), p.mean((1, 2))) for v, p in zip(variances, priors, strict=True)]
    return Activity(
        30,
        share(variances),
        share([v / p for v, p in zip(variances, priors, strict=True)]),
        share([v for v, _ in by_channel]),
        share([v / p for v, p in by_channel]),
    )


@pytest.mark.parametrize("threshold", [0.003, 0.01, 0.03])
def test_equal_to_the_direct_formula(groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], threshold: float) -> None:
    found = statistics_of(groups, [list(range(11)), list(range(11, 30))]).activity(threshold)
    expected = direct(groups, threshold)
    assert 0 < expected.latents < 1
    assert 0 < expected.latents_relative < 1
    assert astuple(found) == astuple(expected)


def test_variances_are_exact_to_1e_9_in_any_order(groups: list[tuple[DiagonalGaussian, DiagonalGaussian]]) -> None:
    """A threshold just below each true variance counts the latent, one just above does not."""
    variance = groups[1][0].mean.numpy().var(0, ddof=1).ravel()
    shuffled = np.random.default_rng(0).permutation(30).tolist()
    statistics = LatentStatistics(SHAPES[1:], CPU)
    for start in range(0, 30, 7):
        rows = shuffled[start : start + 7]
        posterior = DiagonalGaussian(groups[1][0].mean[rows], groups[1][0].log_scale[rows])
        statistics.add([posterior], [posterior])
    for threshold in np.sort(variance)[[0, 10, 31]]:
        below, above = (statistics.activity(threshold * factor).latents for factor in (1 - 1e-9, 1 + 1e-9))
        assert below - above == pytest.approx(1 / 32)


def test_processes_do_not_matter(
    groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], in_worlds: Callable[..., list[Activity]]
) -> None:
    def of_rank(world: World) -> Activity:
        statistics = statistics_of(groups, [list(range(world.rank, 30, 3))])
        statistics.all_reduce_(world)
        return statistics.activity()

    assert in_worlds(3, of_rank) == [direct(groups, 0.01)] * 3


def test_a_channel_counts_by_its_average_position() -> None:
    """One position of four with variance 0.05 makes its channel's average 0.0125: active; 0.03 makes it 0.0075."""
    statistics = LatentStatistics([(2, 2, 2)], CPU)
    mean = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    mean[1, 0, 0, 0] = (2 * 0.05) ** 0.5
    mean[1, 1, 0, 0] = (2 * 0.03) ** 0.5
    posterior = DiagonalGaussian(mean, torch.zeros_like(mean))
    statistics.add([posterior], [posterior])
    found = statistics.activity()
    assert (found.latents, found.channels) == (2 / 8, 1 / 2)


def test_collapsed_model_has_no_active_latent(collapsed_model: VDVAE, batches_of: BatchMaker, world: World) -> None:
    assert astuple(measure_activity(collapsed_model, batches_of([range(7)]), world=world)) == (7, 0, 0, 0, 0)


def test_latents_that_only_follow_the_latents_above_are_not_active(
    small_model: VDVAE, batches_of: BatchMaker, world: World
) -> None:
    """Where the posterior ignores the image but not z_<l, drawing z_<l would make every lower latent look active."""
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            block.posterior.reduce_feature.weight.zero_()
            block.posterior.expand.weight.mul_(30)
    found = measure_activity(small_model, batches_of([range(7)]), world=world)
    assert (found.latents, found.channels) == (0, 0)


def test_the_mean_path_takes_every_posterior_mean(small_model: VDVAE, pixels: Tensor) -> None:
    posteriors, priors = mean_path(small_model, pixels.double())
    noise = [torch.zeros(7, *shape, dtype=torch.float64) for shape in small_model.latent_shapes]
    passed = small_model.infer(pixels.double(), noise)
    for posterior, prior, group in zip(posteriors, priors, passed.groups, strict=True):
        assert torch.equal(posterior.mean, group.latent)
        assert torch.equal(prior.log_scale, group.prior.log_scale)


@pytest.mark.parametrize("shards", [[[0]], []])
def test_a_variance_needs_two_images(
    small_model: VDVAE, batches_of: BatchMaker, world: World, shards: list[list[int]]
) -> None:
    with pytest.raises(InputError, match="at least 2"):
        measure_activity(small_model, batches_of(shards), world=world)


def test_mean_prior_scale_is_over_all_latents() -> None:
    """A large group weighs more than a small one: (1·2 + 4·1)/(1 + 4) and (1·0.5 + 4·3)/5."""
    scales = [torch.tensor([2.0, 0.5]).reshape(2, 1, 1, 1), torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)]
    priors = [
        DiagonalGaussian(torch.zeros(2, 1, side, side), scale.log().expand(2, 1, side, side))
        for side, scale in zip((1, 2), scales, strict=True)
    ]
    torch.testing.assert_close(mean_prior_scale(priors), torch.tensor([6 / 5, 12.5 / 5]))
