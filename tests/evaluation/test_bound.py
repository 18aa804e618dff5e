"""The bound of a split: the losses' own numbers, whatever the batches, their order and the processes."""

import math
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.bound import Bound, evaluate_bound
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings, evaluate_objective
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

BatchMaker = Callable[..., list[Batch]]
SEED = 5


def numbers(bound: Bound) -> np.ndarray:
    *scalars, groups = astuple(bound)
    return np.array([*scalars, *groups])


@pytest.fixture
def bound(small_model: VDVAE, batches_of: BatchMaker, world: World) -> Bound:
    return evaluate_bound(small_model, batches_of([range(7)]), seed=SEED, world=world)


def test_equal_to_the_objective_example_by_example(
    small_model: VDVAE, pixels: Tensor, bound: Bound, world: World
) -> None:
    noise = PassNoise(small_model, 1, world.device, image=False)
    terms = []
    for index in range(7):
        noise.draw_rows([noise_key("evaluate", SEED, index)])
        levels = pixels[index : index + 1].double()
        passed = small_model.infer(levels, noise.posterior)
        target = small_model.pixel_scale.target_from_levels(levels)
        found = evaluate_objective(ObjectiveSettings(alpha_T=0), small_model, passed, target, alpha=0.0)
        terms.append([found.negative_elbo.item(), found.rate.item(), found.distortion.item()])
    values = np.array(terms)
    assert bound.examples == 7
    np.testing.assert_allclose([bound.negative_elbo, bound.rate, bound.distortion], values.mean(0), rtol=1e-12)
    assert bound.standard_error == pytest.approx(values[:, 0].std(ddof=1) / math.sqrt(7), rel=1e-9)


@pytest.mark.parametrize(
    "shards",
    [[[0], [1], [2], [3], [4], [5], [6]], [[0, 1, 2], [3, 4, 5], [6]], [[6, 2], [4, 0, 5, 1], [3]]],
    ids=["one by one", "short last batch", "shuffled"],
)
def test_batches_and_order_do_not_matter(
    small_model: VDVAE, batches_of: BatchMaker, world: World, bound: Bound, shards: list[list[int]]
) -> None:
    other = evaluate_bound(small_model, batches_of(shards), seed=SEED, world=world)
    np.testing.assert_allclose(numbers(other), numbers(bound), rtol=1e-9)


@pytest.mark.parametrize(("size", "n_batch"), [(2, 2), (3, 4)], ids=["two", "three, one of them idle"])
def test_processes_do_not_matter(
    small_model: VDVAE,
    batches_of: BatchMaker,
    bound: Bound,
    in_worlds: Callable[..., list[Bound]],
    size: int,
    n_batch: int,
) -> None:
    def of_rank(world: World) -> Bound:
        shards = evaluation_shards(7, n_batch, world.rank, world.size)
        return evaluate_bound(small_model, batches_of(shards), seed=SEED, world=world)

    for other in in_worlds(size, of_rank):
        np.testing.assert_allclose(numbers(other), numbers(bound), rtol=1e-9)


def test_seed_matters(small_model: VDVAE, batches_of: BatchMaker, world: World, bound: Bound) -> None:
    other = evaluate_bound(small_model, batches_of([range(7)]), seed=SEED + 1, world=world)
    assert abs(other.negative_elbo - bound.negative_elbo) > 1e-6


def test_parts_add_up(bound: Bound) -> None:
    assert bound.rate + bound.distortion == pytest.approx(bound.negative_elbo, rel=1e-12)
    assert sum(bound.group_rates) == pytest.approx(bound.rate, rel=1e-12)
    assert len(bound.group_rates) == 5
    assert bound.rate > 0


def test_units(bound: Bound) -> None:
    assert bound.dimensions == 3 * 8 * 8
    for name in ("negative_elbo", "standard_error"):
        bits = getattr(bound, f"{name}_bits_per_dim")
        assert bits == pytest.approx(getattr(bound, name) / 0.6931471805599453, rel=1e-12)


def test_no_images_are_refused(small_model: VDVAE, world: World) -> None:
    with pytest.raises(InputError, match="no images"):
        evaluate_bound(small_model, [], seed=0, world=world)


def test_nothing_is_left_behind(small_model: VDVAE, batches_of: BatchMaker, world: World) -> None:
    before = torch.get_rng_state()
    evaluate_bound(small_model, batches_of([[0, 1]]), seed=0, world=world)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in small_model.parameters())
