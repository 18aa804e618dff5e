"""Active latents against numpy's direct formula, in any order and over processes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from measured_pixels import latent_statistics, measure_active_units
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.activity import ActiveUnits, LatentStatistics
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.processes.world import World

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
        statistics.take_in([pair[0] for pair in chosen], [pair[1] for pair in chosen])
    return statistics


def direct(groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], threshold: float) -> list[ActiveUnits]:
    """Latents and channels, each as they are and in units of the prior's variance."""
    variances = [posterior.mean.numpy().var(0, ddof=1) for posterior, _ in groups]
    priors = [np.exp(2 * prior.log_scale.numpy()).mean(0) for _, prior in groups]
    found = []
    for axes in ((), (1, 2)):
        own = [value.mean(axes) for value in variances]
        relative = [value / prior.mean(axes) for value, prior in zip(own, priors, strict=True)]
        for values in (own, relative):
            active = tuple(int((value >= threshold).sum()) for value in values)
            found.append(ActiveUnits(active, tuple(value.size for value in values)))
    return found


def all_units(statistics: LatentStatistics, threshold: float = 0.01) -> list[ActiveUnits]:
    """In the order of `direct`."""
    pairs = [(unit, relative) for unit in ("latents", "channels") for relative in (False, True)]
    return [statistics.active(unit, threshold, relative=relative) for unit, relative in pairs]


@pytest.mark.parametrize("threshold", [0.003, 0.01, 0.03])
def test_equal_to_the_direct_formula(groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], threshold: float) -> None:
    found = all_units(statistics_of(groups, [list(range(11)), list(range(11, 30))]), threshold)
    expected = direct(groups, threshold)
    assert 0 < expected[0].share() < 1
    assert 0 < expected[1].share() < 1
    assert found == expected


def test_a_latent_is_active_at_its_own_variance_and_not_above(
    groups: list[tuple[DiagonalGaussian, DiagonalGaussian]],
) -> None:
    """A threshold just below each true variance counts the latent, one just above does not."""
    variance = groups[1][0].mean.numpy().var(0, ddof=1).ravel()
    shuffled = np.random.default_rng(0).permutation(30).tolist()
    statistics = statistics_of(groups, [shuffled[start : start + 7] for start in range(0, 30, 7)])
    for threshold in np.sort(variance)[[0, 10, 31]]:
        below, above = (all_units(statistics, threshold * factor)[0].active[1] for factor in (1 - 1e-9, 1 + 1e-9))
        assert below - above == 1


ORDERS = [list(range(30)), list(range(29, -1, -1)), np.random.default_rng(4).permutation(30).tolist()]


@pytest.mark.parametrize("order", ORDERS, ids=["forwards", "backwards", "shuffled"])
@pytest.mark.parametrize("batch", [1, 7, 30])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_variances_are_numpys_in_any_order_batch_and_world(
    groups: list[tuple[DiagonalGaussian, DiagonalGaussian]],
    in_worlds: Callable[..., list[tuple[Tensor, ...]]],
    order: list[int],
    batch: int,
    size: int,
) -> None:
    """Also where a mean is a million times its deviation, which a difference of sums of squares would not survive."""
    groups = [(DiagonalGaussian(1e4 + q.mean, q.log_scale), p) for q, p in groups]
    shards = [order[start : start + batch] for start in range(0, 30, batch)]

    def of_rank(world: World) -> tuple[Tensor, ...]:
        statistics = statistics_of(groups, shards[world.rank :: world.size])
        for statistic in statistics.statistics:
            statistic.all_reduce_(world)
        return statistics.variances

    for found in in_worlds(size, of_rank):
        for variance, (posterior, _) in zip(found, groups, strict=True):
            np.testing.assert_allclose(variance.numpy(), posterior.mean.numpy().var(0, ddof=1), rtol=1e-9)


def test_processes_do_not_matter(
    groups: list[tuple[DiagonalGaussian, DiagonalGaussian]], in_worlds: Callable[..., list[list[ActiveUnits]]]
) -> None:
    def of_rank(world: World) -> list[ActiveUnits]:
        statistics = statistics_of(groups, [list(range(world.rank, 30, 3))])
        for statistic in statistics.statistics:
            statistic.all_reduce_(world)
        return all_units(statistics)

    assert in_worlds(3, of_rank) == [direct(groups, 0.01)] * 3


def test_a_channel_counts_by_its_average_position() -> None:
    """One position of four with variance 0.05 makes its channel's average 0.0125: active; 0.03 makes it 0.0075."""
    statistics = LatentStatistics([(2, 2, 2)], CPU)
    mean = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    mean[1, 0, 0, 0] = (2 * 0.05) ** 0.5
    mean[1, 1, 0, 0] = (2 * 0.03) ** 0.5
    posterior = DiagonalGaussian(mean, torch.zeros_like(mean))
    statistics.take_in([posterior], [posterior])
    assert statistics.active("latents", 0.01, relative=False).share() == 2 / 8
    assert statistics.active("channels", 0.01, relative=False).share() == 1 / 2


def test_a_position_counts_by_its_average_channel() -> None:
    """At one position a channel of two varies by 0.05: 0.025 on average, active; at another by 0.015: 0.0075."""
    statistics = LatentStatistics([(2, 1, 1), (2, 2, 2)], CPU)
    mean = torch.zeros(2, 2, 2, 2, dtype=torch.float64)
    mean[1, 0, 0, 0] = (2 * 0.05) ** 0.5
    mean[1, 1, 0, 1] = (2 * 0.015) ** 0.5
    posteriors = [DiagonalGaussian(m, torch.zeros_like(m)) for m in (torch.zeros(2, 2, 1, 1), mean)]
    statistics.take_in(posteriors, posteriors)
    assert statistics.active("positions", 0.01, relative=False) == ActiveUnits((0, 1), (1, 4))
    assert statistics.active("channels", 0.01, relative=False) == ActiveUnits((0, 1), (2, 2))
    assert statistics.active("latents", 0.01, relative=False) == ActiveUnits((0, 2), (2, 8))


def test_the_priors_variance_is_averaged_over_a_unit() -> None:
    """Variances 0.06 and 0 in a channel of two positions, the prior's 1 and 3: 0.03 of 2 on average, 0.015 of it."""
    statistics = LatentStatistics([(1, 1, 2)], CPU)  # the second position of a row stands for another one
    mean = torch.zeros(2, 1, 1, 2, dtype=torch.float64)
    mean[1, 0, 0, 0] = (2 * 0.06) ** 0.5
    prior = torch.tensor([1.0, 3.0], dtype=torch.float64).log().div(2).expand(2, 1, 1, 2)
    statistics.take_in([DiagonalGaussian(mean, torch.zeros_like(mean))], [DiagonalGaussian(mean, prior)])
    for threshold, active in ((0.0149, 1), (0.0151, 0)):
        assert statistics.active("channels", threshold, relative=True).active == (active,)


def test_a_prior_variance_of_zero_calls_active_what_varies_at_all() -> None:
    statistics = LatentStatistics([(2, 1, 1)], CPU)
    mean = torch.tensor([[0.0, 1.0], [1e-9, 1.0]], dtype=torch.float64)[:, :, None, None]
    tiny = DiagonalGaussian(mean, torch.full_like(mean, -500))
    statistics.take_in([tiny], [tiny])
    assert statistics.active("latents", 0.01, relative=True) == ActiveUnits((1,), (2,))
    assert statistics.active("latents", 0.01, relative=False) == ActiveUnits((0,), (2,))
    assert statistics.constant_groups() == ()


def measuring_of(pixels: Tensor, world: World, batch: int = 3) -> Measuring:
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    source = ArraySource(images, all_rows(images), "images")
    return Measuring(source, len(images), batch, 0, world, lambda items, total, what: items)


def test_shares_are_stated_at_every_level(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    """Against numpy's variance of one pass over all images, at a threshold amid the positions' variances."""
    silence = [torch.zeros(7, *shape, dtype=torch.float64) for shape in small_model.latent_shapes]
    passed = small_model.infer(pixels.double(), silence)  # every group takes its posterior's mean
    variances = [posterior.mean.detach().numpy().var(0, ddof=1) for posterior in passed.posteriors]
    median = np.median(np.concatenate([variance.mean(0).ravel() for variance in variances]))
    threshold = float(median) * (1 + 1e-6)  # not on a variance itself, where rounding decides
    found, notes = measure_active_units(small_model, measuring_of(pixels, world), threshold=threshold)
    quantity = {each.key: each for each in found}["active_positions"]
    active = [variance.mean(0).ravel() >= threshold for variance in variances]
    assert 0 < np.concatenate(active).mean() < 1
    assert [part.value for part in quantity.groups] == pytest.approx([100 * group.mean() for group in active])
    sides = [variance.shape[1] for variance in variances]
    for level, part in quantity.resolutions.items():
        chosen = np.concatenate([group for group, side in zip(active, sides, strict=True) if side == level])
        assert part.value == pytest.approx(100 * chosen.mean())
    assert list(quantity.resolutions) == [1, 4, 8]
    assert quantity.total is not None
    assert quantity.total.value == pytest.approx(100 * np.concatenate(active).mean())
    assert (quantity.unit, quantity.total.images, quantity.total.standard_error) == ("%", 7, None)
    assert notes == []


def test_groups_that_never_move_are_named(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    with torch.no_grad():
        for number in (1, 4):
            network = small_model.decoder.blocks[number].posterior.expand
            network.weight.zero_()
    found, (note,) = measure_active_units(small_model, measuring_of(pixels, world))
    assert "groups 1 and 4 is the same for every image" in note
    for quantity in found:
        assert (quantity.groups[1].value, quantity.groups[4].value) == (0, 0)


def test_prior_scale_of_the_active_latents_leaves_out_the_others() -> None:
    """Two latents, the first active. The scale is the root of the mean of σ_p² over images; the other's is left out."""
    statistics = LatentStatistics(((2, 1, 1),), torch.device("cpu"))
    for sign, scale in ((1, 3.0), (-1, 4.0)):
        mean = torch.tensor([sign, 0.0]).view(1, 2, 1, 1).double()
        posteriors = [DiagonalGaussian(mean, torch.zeros_like(mean))]
        log_scale = torch.tensor([scale, 100.0]).view(1, 2, 1, 1).double().log()
        statistics.take_in(posteriors, [DiagonalGaussian(torch.zeros_like(mean), log_scale)])
    assert statistics.active_latents(0.01).counts() == [1]
    assert statistics.active_latents(0.01).masks[0].flatten().tolist() == [True, False]
    assert statistics.active_prior_scale(0.01, [0]) == pytest.approx(math.sqrt((9 + 16) / 2))
    assert statistics.active_prior_scale(10.0, [0]) == 0


def test_collapsed_model_has_no_active_latent(collapsed_model: VDVAE, batches_of: BatchMaker, world: World) -> None:
    statistics = latent_statistics(collapsed_model, batches_of([range(7)]), world=world)
    assert [units.share() for units in all_units(statistics)] == [0, 0, 0, 0]


def test_latents_that_only_follow_the_latents_above_are_not_active(
    small_model: VDVAE, batches_of: BatchMaker, world: World
) -> None:
    """Where the posterior ignores the image but not z_<l, drawing z_<l would make every lower latent look active."""
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            block.posterior.reduce_feature.weight.zero_()
            block.posterior.expand.weight.mul_(30)
    latents, _, channels, _ = all_units(latent_statistics(small_model, batches_of([range(7)]), world=world))
    assert (latents.share(), channels.share()) == (0, 0)


@pytest.mark.parametrize("shards", [[[0]], []])
def test_a_variance_needs_two_images(
    small_model: VDVAE, batches_of: BatchMaker, world: World, shards: list[list[int]]
) -> None:
    with pytest.raises(InputError, match="at least 2"):
        all_units(latent_statistics(small_model, batches_of(shards), world=world))
