"""The noise response by group, resolution and in total: every number is that of one plain decoding."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from measured_pixels import task_of
from torch import Tensor

from vdvae_lr.datasets.sources import ArraySource, ImageSource, all_rows
from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.noise_response import image_rms
from vdvae_lr.evaluation.noise_section import measure_noise
from vdvae_lr.evaluation.perceptual import structural_similarity
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.evaluation.task import NoiseUnit
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import Given
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.pictures.evaluation_pictures import noise_pictures
from vdvae_lr.processes.world import World

EXAMPLES, SEED = 7, 5
RESOLUTIONS = (1, 4, 4, 8, 8)  # of the small model's groups
UNITS: tuple[NoiseUnit, ...] = ("raw", "prior_scale")


def silent(items, total, what):  # type: ignore[no-untyped-def]
    return items


@pytest.fixture(params=[3, 1])
def model(request: pytest.FixtureRequest, small_model: VDVAE) -> VDVAE:
    """The small model, in colour and in grey."""
    if request.param == 3:
        return small_model
    torch.manual_seed(1)
    grey = VDVAE(replace(small_model.config, image_channels=1)).double()
    with torch.no_grad():
        for parameter in grey.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return grey


def source_for(model: VDVAE, pixels: Tensor) -> ImageSource:
    images = pixels[:, : model.config.image_channels].permute(0, 2, 3, 1).contiguous().numpy()
    return ArraySource(images, all_rows(images), "images")


@pytest.fixture
def measure(model: VDVAE, pixels: Tensor, world: World) -> Callable[..., dict[str, Quantity]]:
    """Quantities by key; the arguments that a test does not name are plain."""

    def call(in_world: World = world, batch: int = 3, of: VDVAE = model, **changes: object) -> dict[str, Quantity]:
        measuring = Measuring(source_for(of, pixels), EXAMPLES, batch, SEED, in_world, silent)
        arguments = {"variances": (0.0, 0.3), "units": UNITS, "images": EXAMPLES} | changes
        settings = {f"noise_{name}": value for name, value in arguments.items()}
        found = measure_noise(task_of(of, measuring, **settings)).quantities
        return {quantity.key: quantity for quantity in found}

    return call


def plainly(
    model: VDVAE, pixels: Tensor, places: Sequence[Sequence[int]], variance: float, unit: NoiseUnit
) -> dict[str, Tensor]:
    """RMS and similarity, (places, images), of noise in the groups of each place: a pass for every one of them."""
    measured: dict[str, list[Tensor]] = {"rms": [], "ssim": []}
    noise = PassNoise(model, 1, torch.device("cpu"), image=False)
    for example in range(len(pixels)):
        noise.draw_rows([noise_key("evaluate", SEED, example)])
        levels = pixels[example : example + 1, : model.config.image_channels].double()
        passed = model.infer(levels, noise.posterior)
        clean = passed.likelihood.mean().detach()
        noise.draw_rows([noise_key("noise response", SEED, example)])
        for groups in places:
            given = []
            for number, (group, draw) in enumerate(zip(groups_of(passed), noise.posterior, strict=True)):
                scale = math.sqrt(variance) * (number in groups)
                scale = scale * group.prior.log_scale.exp() if unit == "prior_scale" else scale
                given.append(Given(group.latent + scale * draw.double()))
            image = model.top_down(given, 1).likelihood.mean().detach()
            measured["rms"].append(image_rms(image, clean))
            measured["ssim"].append(structural_similarity(image, clean))
    return {name: torch.cat(values).view(len(pixels), len(places)).mT for name, values in measured.items()}


@pytest.mark.parametrize("unit", UNITS)
def test_every_level_is_a_plain_decoding(
    model: VDVAE, pixels: Tensor, measure: Callable[..., dict[str, Quantity]], unit: NoiseUnit
) -> None:
    places = [[0, 1, 2, 3, 4], [0], [1, 2], [3, 4], *([group] for group in range(5))]
    expected = plainly(model, pixels, places, 0.3, unit)
    measured = measure(variances=(0.3,), units=(unit,))
    for name in ("rms", "ssim"):
        quantity = measured[f"noise_{name}_{unit}_0.3"]
        assert quantity.total is not None
        assert list(quantity.resolutions) == [1, 4, 8]
        assert len(quantity.groups) == 5
        found = [quantity.total, *quantity.resolutions.values(), *quantity.groups]
        assert [one.value for one in found] == pytest.approx(expected[name].mean(1).tolist(), rel=1e-9)
        errors = (expected[name].std(1) / math.sqrt(EXAMPLES)).tolist()
        assert [one.standard_error for one in found] == pytest.approx(errors, rel=1e-7)
        assert {one.images for one in found} == {EXAMPLES}
        assert len({one.value for one in found}) == 8  # of 9: at resolution 1 there is one group only


def test_no_noise_is_exactly_nothing(measure: Callable[..., dict[str, Quantity]]) -> None:
    found = measure()
    expected = [f"noise_{name}_{unit}_{v}" for name in ("rms", "ssim") for unit in UNITS for v in (0.0, 0.3)]
    assert list(found)[: len(expected)] == expected
    assert not any(key.endswith("_0.0") for key in list(found)[len(expected) :])
    for unit in UNITS:
        for name, value in (("rms", 0.0), ("ssim", 1.0)):
            quantity = found[f"noise_{name}_{unit}_0.0"]
            levels = [quantity.total, *quantity.groups, *quantity.resolutions.values()]
            assert [(level.value, level.standard_error) for level in levels if level] == [(value, 0)] * 9


@pytest.mark.parametrize("images", [1, 4, 100])
def test_batches_and_processes_do_not_matter(
    measure: Callable[..., dict[str, Quantity]], in_worlds: Callable[..., list[dict[str, Quantity]]], images: int
) -> None:
    def numbers(found: dict[str, Quantity]) -> list[tuple[float, float | None, int]]:
        levels = [[q.total, *q.groups, *q.resolutions.values()] for q in found.values()]
        return [(one.value, one.standard_error or 0.0, one.images) for level in levels for one in level if one]

    few = {"images": images, "variances": (0.3,), "units": ("prior_scale",)}
    expected = numbers(measure(batch=1, **few))
    assert expected[0][2] == min(images, EXAMPLES)
    everywhere = [measure(batch=batch, **few) for batch in (2, 7, 64)]
    for size in (2, 3):
        everywhere += in_worlds(size, lambda world: measure(world, batch=2, **few))
    for found in everywhere:
        np.testing.assert_allclose(numbers(found), expected, rtol=1e-8, atol=1e-14)


def test_chosen_groups_are_in_the_total(measure: Callable[..., dict[str, Quantity]]) -> None:
    """Other choices put other images into one decoder pass, so their sums may round differently."""
    every, coarse, one = measure(), measure(groups="1,2"), measure(groups="4", by_group=False)
    for key, quantity in every.items():
        for chosen, expected in (
            (coarse[key].total, quantity.resolutions[4]),
            (one[key].total, quantity.groups[4]),
            *zip(coarse[key].groups, quantity.groups, strict=True),
            *((coarse[key].resolutions[level], measured) for level, measured in quantity.resolutions.items()),
        ):
            assert chosen is not None
            assert chosen.images == expected.images
            assert chosen.value == pytest.approx(expected.value, rel=1e-9, abs=1e-15)
            assert chosen.standard_error == pytest.approx(expected.standard_error, rel=1e-7, abs=1e-15)
        assert coarse[key].resolutions.keys() == quantity.resolutions.keys()
        assert (one[key].groups, one[key].resolutions) == ((), {})


def test_few_images_occupy_every_process(measure: Callable[..., dict[str, Quantity]]) -> None:
    """A world that hands nothing over: this process measures its own share of four images and no more."""
    alone = World(1, 2, torch.device("cpu"))
    object.__setattr__(alone, "all_reduce_sum_", lambda values: values)
    quantity = measure(alone, batch=64, images=4)["noise_rms_raw_0.3"]
    assert quantity.total is not None
    assert quantity.total.images == 2


def test_noise_beyond_numbers_is_left_to_the_caller_on_every_process(
    model: VDVAE, measure: Callable[..., dict[str, Quantity]], in_worlds: Callable[..., list[str]]
) -> None:
    narrow = model.float()  # √1e80 is beyond it

    def refused(world: World) -> str:
        with pytest.raises(UnmeasurableError) as caught:
            measure(world, of=narrow, variances=(0.3, 1e80, 1e81))
        return str(caught.value)

    for said in (refused(World(0, 1, torch.device("cpu"))), *in_worlds(2, refused)):
        assert said == "latent noise of variance 1e+80 makes images that are not finite; give less noise."


def test_a_picture_of_noise_beyond_numbers_is_refused(small_model: VDVAE, pixels: Tensor) -> None:
    with pytest.raises(UnmeasurableError, match=r"variance 1e\+80 makes images"):
        noise_pictures(small_model.float(), pixels, (0.3, 1e80), seed=0)
