"""Mutual information: its definition by full second passes, its limits, and all that must not change it."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from measured_pixels import measuring_of, numbers_of, task_of
from torch import Tensor

from vdvae_lr.evaluation import mutual_information
from vdvae_lr.evaluation.mutual_information import measure_mutual_information
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import Given
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

SEED, BLOCK, QUERIES = 4, 3, 5
CPU = torch.device("cpu")


def measured(model: VDVAE, pixels: Tensor, world: World, *, batch: int = 2, block: int = BLOCK) -> dict[str, Quantity]:
    measuring = measuring_of(pixels, world, batch=batch, seed=SEED)
    task = task_of(model, measuring, mixture_batch=block, mixture_images=QUERIES)
    found = measure_mutual_information(task).quantities
    return {quantity.key: quantity for quantity in found}


@pytest.fixture(params=[3, 1], ids=["colour", "grey"])
def overlapping(request: pytest.FixtureRequest, small_model: VDVAE, pixels: Tensor) -> tuple[VDVAE, Tensor]:
    """A model whose posteriors of different images overlap, so that every component counts; and its images."""
    torch.manual_seed(0)
    model = VDVAE(replace(small_model.config, image_channels=request.param)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for block in model.decoder.blocks:
            block.posterior.expand.weight[:3].mul_(7)  # the means of three channels
    return model, pixels[:, : request.param]


@pytest.fixture
def far_apart(small_model: VDVAE) -> VDVAE:
    """Posteriors so narrow and so far from each other that every latent names its image."""
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            block.posterior.expand.weight.mul_(20)
            block.posterior.expand.weight[3:].zero_()  # log-scales, behind three channels' means
            block.posterior.expand.bias[3:].fill_(-5)
    return small_model


def log_probs(model: VDVAE, pixels: Tensor, query: int, components: range) -> np.ndarray:
    """log q(z_l|z_<l, x_j) of one image's latents for each component, by a full pass each: (J, L)."""
    noise = PassNoise(model, 1, CPU)
    noise.draw_rows([noise_key("evaluate", SEED, query)])
    passed = model.infer(pixels[query : query + 1].double(), noise.posterior)
    given = [Given(group.latent) for group in groups_of(passed)]
    rows = []
    for number in components:
        groups = groups_of(model.top_down(given, 1, model.encode(pixels[number : number + 1].double())))
        rows.append([group.posterior.log_prob(group.latent).sum().item() for group in groups])
    return np.array(rows)


def by_hand(model: VDVAE, pixels: Tensor, query: int, components: range) -> list[float]:
    """I(z_l; X | z_<l) of one query: its own log-density less that of a mixture weighted by what z_<l say of x."""
    found = log_probs(model, pixels, query, components)
    weights = np.full(len(components), 1 / len(components))
    values = []
    for group in found.T:
        density = np.exp(group - group.max())
        mixture = (weights * density).sum()
        values.append(group[query - components.start] - group.max() - math.log(mixture))
        weights = weights * density / mixture
    return values


def check(quantity: Quantity, expected: np.ndarray, dimensions: int) -> None:
    """Against values by image and group (N, L), in nats."""
    total = expected.sum(1) / dimensions
    assert quantity.total.images == len(total)
    assert quantity.total.value == pytest.approx(total.mean(), rel=1e-9)
    assert quantity.total.standard_error == pytest.approx(total.std(ddof=1) / math.sqrt(len(total)), rel=1e-7)
    groups = [measured.value * dimensions for measured in quantity.groups]
    np.testing.assert_allclose(groups, expected.mean(0), rtol=1e-7, atol=1e-9)
    by_resolution = {1: expected[:, 0], 4: expected[:, 1:3].sum(1), 8: expected[:, 3:].sum(1)}
    for resolution, values in by_resolution.items():
        assert quantity.resolutions[resolution].value * dimensions == pytest.approx(values.mean(), rel=1e-7, abs=1e-9)


def test_equal_to_the_definition_by_full_second_passes(overlapping: tuple[VDVAE, Tensor], world: World) -> None:
    model, pixels = overlapping
    found = measured(model, pixels, world)
    blocks = [range(3)] * 3 + [range(3, 6)] * 3  # the seventh image fills none
    within = np.array([by_hand(model, pixels, query, block) for query, block in enumerate(blocks)])
    over_all = np.array([by_hand(model, pixels, query, range(7)) for query in range(QUERIES)])
    check(found["mutual_information"], within, model.dimensions)
    check(found["mutual_information_set"], over_all, model.dimensions)
    for values, components in ((within, BLOCK), (over_all, 7)):  # neither collapsed nor at the ceiling
        assert values.sum(1).std() > 0.2
        assert values.sum(1).mean() < math.log(components) - 0.2


def test_ceilings_are_stated(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measured(small_model, pixels, world)
    for key, components, images in (("mutual_information", BLOCK, 6), ("mutual_information_set", 7, QUERIES)):
        ceiling = found[f"{key}_ceiling"].total
        assert ceiling.value == pytest.approx(math.log(components) / 192, rel=1e-12)
        assert (ceiling.standard_error, ceiling.images) == (None, images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_posteriors_far_apart_reach_the_ceiling_and_no_more(
    far_apart: VDVAE, pixels: Tensor, world: World, dtype: torch.dtype
) -> None:
    found = measured(far_apart.to(dtype), pixels, world)
    for key in ("mutual_information", "mutual_information_set"):
        ceiling = found[f"{key}_ceiling"].total.value
        assert found[key].total.value <= ceiling * (1 + 1e-12)
        assert found[key].total.value == pytest.approx(ceiling, rel=1e-6)


def test_every_image_twice_loses_one_bit(far_apart: VDVAE, pixels: Tensor, world: World) -> None:
    """Latents cannot tell the two of a pair: ln 4 − ln 2 in blocks of four, ln 6 − ln 2 over all."""
    twice = pixels[:3].repeat_interleave(2, 0)
    found = measured(far_apart, twice, world, block=4)
    assert found["mutual_information"].total.value * 192 == pytest.approx(math.log(2), rel=1e-6)
    assert found["mutual_information_set"].total.value * 192 == pytest.approx(math.log(3), rel=1e-6)


def test_collapsed_model_has_none(collapsed_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measured(collapsed_model, pixels, world)
    for key in ("mutual_information", "mutual_information_set"):
        levels = (found[key].total, *found[key].resolutions.values(), *found[key].groups)
        assert max(abs(level.value) for level in levels) < 1e-12


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (1, 32), (2, 2), (3, 4), (3, 1)])
def test_batches_and_processes_do_not_matter(
    overlapping: tuple[VDVAE, Tensor],
    world: World,
    in_worlds: Callable[..., list[dict[str, Quantity]]],
    size: int,
    batch: int,
) -> None:
    model, pixels = overlapping
    expected = numbers_of(measured(model, pixels, world).values())
    for found in in_worlds(size, lambda one: measured(model, pixels, one, batch=batch)):
        others = numbers_of(found.values())
        assert list(others) == list(expected)
        for key, numbers in others.items():
            np.testing.assert_allclose(numbers, expected[key], rtol=1e-8, atol=1e-12)


def test_what_is_not_wanted_is_left_out(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    measuring = measuring_of(pixels, world)
    nothing = task_of(small_model, measuring, mixture_batch=0, mixture_images=0)
    assert measure_mutual_information(nothing).quantities == []
    over_all = task_of(small_model, measuring, mixture_batch=0, mixture_images=1000)
    (found, _) = measure_mutual_information(over_all).quantities
    assert (found.key, found.total.images) == ("mutual_information_set", 7)


def test_so_many_batches_are_enough(
    small_model: VDVAE, pixels: Tensor, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutual_information, "BATCH_MIXTURES", 2)
    assert measured(small_model, pixels, world, block=2)["mutual_information"].total.images == 4
