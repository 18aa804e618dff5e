"""Importance weights of a VDVAE: recomputed draw by draw from the definition, whatever the batches and processes."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from measured_pixels import measuring_of, task_of
from torch import Tensor
from torch.distributions import Normal

from vdvae_lr.evaluation.importance import ImageWeights, measure_importance
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import FromPosterior, Given
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

SEED, DIMENSIONS, GROUPS = 4, 192, 5
BOUNDS = ["importance_bound", "importance_bound_bits", "single_draw_bound"]


@pytest.fixture
def measuring(pixels: Tensor) -> Callable[..., Measuring]:
    return lambda world, batch=7: measuring_of(pixels, world, batch=batch, seed=SEED)


def measured(model: VDVAE, measuring: Measuring, *, images: int, draws: int, gap_images: int) -> Findings:
    settings = {"importance_images": images, "importance_draws": draws, "gap_images": gap_images}
    return measure_importance(task_of(model, measuring, **settings))


def by_key(quantities: list[Quantity]) -> dict[str, Quantity]:
    found = {quantity.key: quantity for quantity in quantities}
    assert len(found) == len(quantities)
    return found


def noise_of(model: VDVAE, *parts: int | str) -> list[Tensor]:
    noise = PassNoise(model, 1, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key(*parts)])
    return [draw.clone() for draw in noise.posterior]


def log_weight(model: VDVAE, levels: Tensor, example: int, first: int, draw: int) -> float:
    """One draw's log p(x, z_≥l|z_<l) − log q(z_≥l|z_<l, x), l counted from 0, with torch's own Gaussians."""
    held = groups_of(model.infer(levels, noise_of(model, "evaluate", SEED, example)))[:first]
    free = noise_of(model, "importance", SEED, example, draw)[first:]
    sources = [Given(group.latent) for group in held] + [FromPosterior(noise) for noise in free]
    passed = model.top_down(sources, 1, model.encode(levels))
    target = model.pixel_scale.target_from_levels(levels)
    total = passed.likelihood.log_prob(target).sum().item()
    for group in groups_of(passed)[first:]:
        for distribution, sign in ((group.prior, 1), (group.posterior, -1)):
            density = Normal(distribution.mean, distribution.log_scale.exp())
            total += sign * density.log_prob(group.latent).sum().item()
    return total


def table(model: VDVAE, pixels: Tensor, first: int, draws: int) -> np.ndarray:
    """(images, K)."""
    return np.array(
        [
            [log_weight(model, pixels[i : i + 1].double(), i, first, draw) for draw in range(draws)]
            for i in range(len(pixels))
        ]
    )


def log_mean(weights: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(weights, axis=1) - math.log(weights.shape[1])


def same(found: Measurement, values: np.ndarray, factor: float = 1 / DIMENSIONS) -> None:
    """Mean and standard error of one number an image; the model is float64, so they agree far below a nat."""
    assert found.images == len(values)
    assert found.value == pytest.approx(values.mean() * factor, rel=1e-9, abs=1e-12)
    error = values.std(ddof=1) / math.sqrt(len(values)) * factor
    assert found.standard_error == pytest.approx(error, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("draws", [1, 3])  # the first draw of three is the one of one
def test_bounds_from_the_definition(
    small_model: VDVAE, pixels: Tensor, world: World, measuring: Callable[..., Measuring], draws: int
) -> None:
    found = by_key(measured(small_model, measuring(world), images=4, draws=draws, gap_images=0).quantities)
    weights = table(small_model, pixels[:4], 0, draws)
    gaussian = ["posterior_gap_gaussian"] if draws > 1 else []
    assert list(found) == [*BOUNDS, "posterior_gap", *gaussian, "effective_sample_size"]
    same(found["importance_bound"].total, -log_mean(weights))
    same(found["importance_bound_bits"].total, -log_mean(weights) / math.log(2))
    same(found["single_draw_bound"].total, -weights.mean(1))
    same(found["posterior_gap"].total, log_mean(weights) - weights.mean(1))
    if gaussian:
        same(found["posterior_gap_gaussian"].total, weights.var(1, ddof=1) / 2)
    normalised = np.exp(weights - weights.max(1, keepdims=True))
    same(found["effective_sample_size"].total, normalised.sum(1) ** 2 / (normalised**2).sum(1) / draws, 100)
    assert all(quantity.groups == () for quantity in found.values())


def test_gap_by_group_from_the_definition(
    small_model: VDVAE, pixels: Tensor, world: World, measuring: Callable[..., Measuring]
) -> None:
    found = by_key(measured(small_model, measuring(world), images=0, draws=2, gap_images=3).quantities)
    tables = [table(small_model, pixels[:3], first, 2) for first in range(GROUPS)]
    below = [log_mean(weights) - weights.mean(1) for weights in tables] + [np.zeros(3)]
    gaps = np.stack([below[first] - below[first + 1] for first in range(GROUPS)], axis=1)
    assert list(found) == ["posterior_gap", "posterior_gap_gaussian", "effective_sample_size"]
    gap, gaussian, share = found.values()
    variances = [weights.var(1, ddof=1) for weights in tables] + [np.zeros(3)]
    assert (gaps < 0).any()  # they are no bounds
    same(gap.total, below[0])
    for group in range(GROUPS):
        same(gap.groups[group], gaps[:, group])
        same(gaussian.groups[group], (variances[group] - variances[group + 1]) / 2)
        weights = np.exp(tables[group] - tables[group].max(1, keepdims=True))
        same(share.groups[group], weights.sum(1) ** 2 / (weights**2).sum(1) / 2, 100)
    assert list(gap.resolutions) == [1, 4, 8]  # of groups 0, 1 and 2, 3 and 4
    same(gap.resolutions[4], gaps[:, 1:3].sum(1))
    assert share.total == share.groups[0]
    assert share.resolutions == {}


def test_weights_below_a_group_are_those_of_what_is_drawn(small_model: VDVAE, pixels: Tensor) -> None:
    """Whole numbers of nats, not only their spread over draws, which the latents held do not change."""
    weights = ImageWeights(small_model, pixels[3:4], [3], SEED)
    weights.hold(noise_of(small_model, "evaluate", SEED, 3))
    for group, number in ((0, 1), (2, 0), (4, 5)):
        expected = log_weight(small_model, pixels[3:4].double(), 3, group, number)
        assert weights.draw(group, number).item() == pytest.approx(expected, rel=1e-9)


def test_bound_is_never_above_that_of_its_draws(
    small_model: VDVAE, world: World, measuring: Callable[..., Measuring]
) -> None:
    found = by_key(measured(small_model, measuring(world), images=7, draws=4, gap_images=7).quantities)
    single, bound = found["single_draw_bound"].total.value, found["importance_bound"].total.value
    assert bound < single
    gap = found["posterior_gap"]
    assert gap.total.value == pytest.approx(single - bound, rel=1e-9)
    assert sum(group.value for group in gap.groups) == pytest.approx(gap.total.value, rel=1e-9)
    assert sum(level.value for level in gap.resolutions.values()) == pytest.approx(gap.total.value, rel=1e-9)


def test_a_silent_last_group_adds_nothing(
    collapsed_model: VDVAE, world: World, measuring: Callable[..., Measuring]
) -> None:
    """With the last group's way to the image cut and q = p there, its true posterior is q itself."""
    with torch.no_grad():
        last = collapsed_model.decoder.blocks[-1].latent_projection
        last.weight.zero_()
        last.bias.zero_()
    found = by_key(measured(collapsed_model, measuring(world), images=0, draws=3, gap_images=4).quantities)
    *others, silent = found["posterior_gap"].groups
    assert silent.value == pytest.approx(0, abs=1e-12)
    assert max(abs(other.value) for other in others) > 1e-4
    assert found["effective_sample_size"].groups[-1].value == pytest.approx(100)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_and_processes_do_not_matter(
    small_model: VDVAE,
    world: World,
    measuring: Callable[..., Measuring],
    in_worlds: Callable[..., list[list[Quantity]]],
    size: int,
) -> None:
    def numbers(quantities: list[Quantity]) -> np.ndarray:
        parts = [[quantity.total, *quantity.groups, *quantity.resolutions.values()] for quantity in quantities]
        return np.array([[m.value, m.standard_error, m.images] for part in parts for m in part])

    plan = {"images": 5, "draws": 2, "gap_images": 3}
    expected = numbers(measured(small_model, measuring(world), **plan).quantities)
    for found in in_worlds(size, lambda one: measured(small_model, measuring(one, batch=2), **plan).quantities):
        np.testing.assert_allclose(numbers(found), expected, rtol=1e-8, atol=1e-12)


def test_notes_say_what_the_draws_are_worth(
    small_model: VDVAE, world: World, measuring: Callable[..., Measuring]
) -> None:
    found = measured(small_model, measuring(world), images=3, draws=8, gap_images=0)
    (note,) = found.notes
    worth = by_key(found.quantities)["effective_sample_size"].total.value / 100 * 8
    assert f"8 draws an image are worth {worth:.1f}." in note


def test_nothing_asked_for_is_nothing(small_model: VDVAE, world: World, measuring: Callable[..., Measuring]) -> None:
    assert measured(small_model, measuring(world), images=0, draws=2, gap_images=0) == Findings([], notes=[])


def test_float32_models_agree(
    small_model: VDVAE, pixels: Tensor, world: World, measuring: Callable[..., Measuring]
) -> None:
    plan = {"images": 3, "draws": 2, "gap_images": 0}
    exact = by_key(measured(small_model, measuring(world), **plan).quantities)
    single = by_key(measured(small_model.float(), measuring(world), **plan).quantities)
    for key in ("importance_bound", "single_draw_bound"):
        assert single[key].total.value == pytest.approx(exact[key].total.value, rel=1e-6)
    gap = exact["posterior_gap"].total.value
    assert single["posterior_gap"].total.value == pytest.approx(gap, rel=1e-4)


def test_progress_is_by_draw(small_model: VDVAE, measuring: Callable[..., Measuring], world: World) -> None:
    shown: list[tuple[str, int]] = []

    def track(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        for item in items:
            yield item
            shown.append((what, total))

    watched = replace(measuring(world, batch=2), track=track)
    measured(small_model, watched, images=3, draws=4, gap_images=2)
    assert shown == [("importance weights", 8)] * 8 + [("posterior gap by group", 4 * GROUPS)] * 4 * GROUPS
