"""Bound, rate and scale by group against torch's own distributions, one image at a time; and how rates spread."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from measured_pixels import measure_rates
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.bound import evaluate_bound, input_rates
from vdvae_lr.evaluation.document import InputRates
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.processes.world import World

SEED = 6
DIMENSIONS = 3 * 8 * 8
RESOLUTIONS = (1, 4, 4, 8, 8)  # of small_model
Found = tuple[list[Quantity], InputRates]


def measuring_of(pixels: Tensor, world: World, batch: int = 3) -> Measuring:
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    source = ArraySource(images, all_rows(images), "images")
    return Measuring(source, len(images), batch, SEED, world, lambda items, total, what: items)


@pytest.fixture
def found(small_model: VDVAE, pixels: Tensor, world: World) -> Found:
    return measure_rates(small_model, measuring_of(pixels, world), content_dimensions=147)


@pytest.fixture
def by_key(found: Found) -> dict[str, Quantity]:
    return {quantity.key: quantity for quantity in found[0]}


@pytest.fixture
def direct(small_model: VDVAE, pixels: Tensor) -> tuple[NDArray[np.float64], list[list[Tensor]]]:
    """KL of every image and group in nats, (7, 5), by torch.distributions; and every image's prior scales by group."""

    def normal(distribution: DiagonalGaussian | None) -> Normal:
        assert distribution is not None
        return Normal(distribution.mean, distribution.log_scale.exp())

    rates, scales = [], []
    for number, image in enumerate(pixels.double()):
        noise = ExampleNoise(small_model, "evaluate", SEED).draw([number]).posterior
        with torch.no_grad():
            groups = groups_of(small_model.infer(image[None], noise))
            rates.append([kl_divergence(normal(g.posterior), normal(g.prior)).sum().item() for g in groups])
        scales.append([group.prior.log_scale.detach().exp().flatten() for group in groups])
    return np.array(rates), scales


def at(level: int) -> list[int]:
    return [group for group, resolution in enumerate(RESOLUTIONS) if resolution == level]


def test_rate_at_every_level(by_key: dict[str, Quantity], direct: tuple[NDArray[np.float64], object]) -> None:
    per_dim = direct[0] / DIMENSIONS
    expected = [*per_dim.T, *(per_dim[:, at(level)].sum(1) for level in (1, 4, 8)), per_dim.sum(1)]
    rate = by_key["rate"]
    assert rate.total is not None
    for part, values in zip((*rate.groups, *rate.resolutions.values(), rate.total), expected, strict=True):
        assert part.value == pytest.approx(values.mean(), rel=1e-9)
        assert part.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(7), rel=1e-9)
        assert part.images == 7
    assert list(rate.resolutions) == [1, 4, 8]


def test_bound_is_evaluate_bounds(
    small_model: VDVAE, batches_of: Callable[..., list[Batch]], world: World, by_key: dict[str, Quantity]
) -> None:
    bound = evaluate_bound(small_model, batches_of([range(7)]), seed=SEED, world=world)
    totals = {key: quantity.total for key, quantity in by_key.items()}
    negative_elbo = totals["negative_elbo"]
    assert negative_elbo is not None
    assert (negative_elbo.value, negative_elbo.standard_error) == pytest.approx(
        (bound.negative_elbo, bound.standard_error)
    )
    assert totals["distortion"] is not None
    assert totals["distortion"].value == pytest.approx(bound.distortion)
    assert not by_key["negative_elbo"].groups


@pytest.mark.parametrize("name", ["negative_elbo", "distortion", "rate"])
def test_other_units_are_the_same_nats(by_key: dict[str, Quantity], name: str) -> None:
    factors = {"": 1.0, "_bits": 1 / math.log(2), "_content": 192 / 147, "_content_bits": 192 / 147 / math.log(2)}
    own = by_key[name].total
    assert own is not None
    for ending, factor in factors.items():
        quantity = by_key[name + ending]
        assert quantity.total is not None
        assert quantity.total.value == pytest.approx(factor * own.value)
        assert quantity.total.standard_error == pytest.approx(factor * (own.standard_error or 0))
        assert quantity.unit == ("bits/dim" if "bits" in ending else "nats/dim")
        assert ("147" in quantity.title) == ("content" in ending)


def test_content_is_left_out_where_not_asked_for(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    keys = [quantity.key for quantity in measure_rates(small_model, measuring_of(pixels, world))[0]]
    assert not [key for key in keys if "content" in key]
    assert len(keys) == len(set(keys))


def test_prior_scale_is_an_average_over_latents(
    by_key: dict[str, Quantity], direct: tuple[object, list[list[Tensor]]]
) -> None:
    """So that a fine group weighs more than a coarse one in what they share."""

    def average(groups: list[int]) -> float:
        return float(np.mean([torch.cat([image[group] for group in groups]).mean() for image in direct[1]]))

    scale = by_key["prior_scale"]
    assert scale.total is not None
    assert scale.total.value == pytest.approx(average([0, 1, 2, 3, 4]))
    assert [part.value for part in scale.groups] == pytest.approx([average([group]) for group in range(5)])
    assert {r: part.value for r, part in scale.resolutions.items()} == pytest.approx(
        {level: average(at(level)) for level in (1, 4, 8)}
    )
    assert scale.groups[0].value != pytest.approx(scale.groups[4].value)


def test_quantiles_answer_which_share_is_collapsed(found: Found, direct: tuple[NDArray[np.float64], object]) -> None:
    """A quantile lies between the two images that the share of the inputs ends between."""
    rates = np.sort(direct[0].sum(1)) / DIMENSIONS
    inputs = found[1]
    assert list(inputs.quantiles) == ["0", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "1"]
    for probability, epsilon in inputs.quantiles.items():
        place = float(probability) * 6
        assert rates[math.floor(place)] * (1 - 1e-9) <= epsilon <= rates[math.ceil(place)] * (1 + 1e-9)
    assert inputs.quantiles["0.5"] == pytest.approx(rates[3])
    for group, quantiles in enumerate(inputs.group_quantiles):
        own = direct[0][:, group] / DIMENSIONS
        assert (quantiles["0"], quantiles["1"]) == pytest.approx((own.min(), own.max()))
    assert (inputs.images, inputs.unit, len(inputs.group_quantiles)) == (7, "nats/dim", 5)


def test_inputs_nearest_collapse_come_first(found: Found, direct: tuple[NDArray[np.float64], object]) -> None:
    rates = direct[0].sum(1) / DIMENSIONS
    expected = sorted(range(7), key=lambda number: rates[number])
    assert [number for number, _ in found[1].nearest_collapse] == expected
    assert [rate for _, rate in found[1].nearest_collapse] == pytest.approx(sorted(rates))


def test_of_equal_inputs_the_lower_number_comes_first() -> None:
    rates = np.ones((40, 2))
    rates[[31, 9, 17], 1] = 0.5
    nearest = input_rates(rates).nearest_collapse
    assert nearest == tuple((number, 1.5) for number in (9, 17, 31)) + tuple((n, 2.0) for n in range(9))


@pytest.mark.parametrize(("size", "batch"), [(1, 7), (1, 2), (2, 3), (3, 1), (3, 4)])
def test_batches_and_processes_do_not_matter(
    small_model: VDVAE,
    pixels: Tensor,
    found: Found,
    in_worlds: Callable[..., list[Found]],
    size: int,
    batch: int,
) -> None:
    def measure(world: World) -> Found:
        return measure_rates(small_model, measuring_of(pixels, world, batch), content_dimensions=147)

    for quantities, inputs in in_worlds(size, measure):
        for quantity, expected in zip(quantities, found[0], strict=True):
            numbers = [(part.value, part.standard_error) for part in (*quantity.groups, quantity.total) if part]
            assert np.allclose(
                numbers, [(p.value, p.standard_error) for p in (*expected.groups, expected.total) if p], rtol=1e-9
            )
        assert inputs.quantiles == pytest.approx(found[1].quantiles)
        assert [number for number, _ in inputs.nearest_collapse] == [n for n, _ in found[1].nearest_collapse]


def test_a_collapsed_prior_scale_gives_numbers_that_are_none_but_no_crash(
    small_model: VDVAE, pixels: Tensor, world: World
) -> None:
    with torch.no_grad():
        small_model.decoder.blocks[2].prior.expand.bias[3:6] = -2000.0
    found, inputs = measure_rates(small_model, measuring_of(pixels, world))
    rate = next(quantity for quantity in found if quantity.key == "rate")
    assert not math.isfinite(rate.groups[2].value)
    assert math.isfinite(rate.groups[1].value)
    assert not math.isfinite(inputs.quantiles["0.5"])
    scale = next(quantity for quantity in found if quantity.key == "prior_scale")
    assert scale.groups[2].value == 0
