"""What decoded images give back: every number written out again, with full second passes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from call_counter import count_calls
from latent_groups import groups_of
from measured_pixels import measure_recovery, measuring_of, numbers_of
from torch import Tensor
from torch.distributions import Normal

from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings, reconstruct_latents
from vdvae_lr.model.latent_model import Given, LatentPass
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

SEED = 4
CPU = torch.device("cpu")
IMAGES = ("mean_image", "sampled_image", "rounded_mean_image")
SQUARES = {"sampled_image": "lr_raw", "mean_image": "lr_raw_mean_image"}
Models = tuple[VDVAE, VDVAE, Tensor]


@pytest.fixture(params=[{"image_channels": 3}, {"image_channels": 1, "bits": 5}], ids=["colour", "grey, 5 bits"])
def models(request: pytest.FixtureRequest, small_model: VDVAE, pixels: Tensor) -> Models:
    """A model, another one "before", and their images (7, C, 8, 8)."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = VDVAE(replace(small_model.config, **request.param)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        found.append(model)
    return found[0], found[1], pixels[:, : request.param["image_channels"]]


def measured(
    model: VDVAE, pixels: Tensor, world: World, before: VDVAE | None = None, batch: int = 3
) -> dict[str, Quantity]:
    found = measure_recovery(model, measuring_of(pixels, world, batch=batch, seed=SEED), before).quantities
    return {quantity.key: quantity for quantity in found}


@torch.inference_mode()
def one_pass(model: VDVAE, pixels: Tensor) -> tuple[LatentPass, dict[str, Tensor]]:
    """z ~ q(z|x) of all images, and the three images decoded from each (7, C, 8, 8)."""
    noise = PassNoise(model, 7, CPU)
    noise.draw_rows([noise_key("evaluate", SEED, number) for number in range(7)])
    passed = model.infer(pixels.double(), noise.posterior)
    mixture = passed.likelihood
    step = 2 ** (8 - model.config.bits)
    rounded = ((mixture.mean() + 1) * 127.5 / step).round().clamp(max=256 // step - 1) * step / 127.5 - 1
    return passed, dict(zip(IMAGES, (mixture.mean(), mixture.sample(noise.image), rounded), strict=True))


def posteriors_of(model: VDVAE, passed: LatentPass, image: Tensor) -> list[Normal]:
    """q(z_l|z_<l, x̂) by a full pass of its own, all latents given."""
    levels = (image + 1) * 127.5 + (2 ** (8 - model.config.bits) - 1) / 2
    groups = groups_of(model.top_down([Given(group.latent) for group in groups_of(passed)], 7, model.encode(levels)))
    return [Normal(group.posterior.mean, group.posterior.log_scale.exp()) for group in groups]


@torch.inference_mode()
def by_hand(model: VDVAE, before: VDVAE, pixels: Tensor) -> dict[str, np.ndarray]:
    """Values by image and group, in nats or squares: (7, 5)."""
    passed, images = one_pass(model, pixels)
    latents = list(passed.latents)
    priors = [Normal(group.prior.mean, group.prior.log_scale.exp()) for group in groups_of(passed)]
    values: dict[str, list[Tensor]] = {}
    for name, image in images.items():
        for suffix, encoder in (("", model), ("_before", before)):
            values[f"recovered_{name}{suffix}"] = [
                q.log_prob(z) - p.log_prob(z)
                for z, p, q in zip(latents, priors, posteriors_of(encoder, passed, image), strict=True)
            ]
    sampled = posteriors_of(model, passed, images["sampled_image"])
    mean = posteriors_of(model, passed, images["mean_image"])
    values["lr_information"] = [-value for value in values["recovered_sampled_image"]]
    values["lr_nll"] = [-q.log_prob(z) for z, q in zip(latents, sampled, strict=True)]
    values["lr_standardised"] = [
        ((q.mean - z) / p.stddev) ** 2 for z, p, q in zip(latents, priors, sampled, strict=True)
    ]
    values["lr_raw"] = [(q.mean - z) ** 2 for z, q in zip(latents, sampled, strict=True)]
    values["lr_raw_mean_image"] = [(q.mean - z) ** 2 for z, q in zip(latents, mean, strict=True)]
    values["innovation"] = [(p.mean - z) ** 2 for z, p in zip(latents, priors, strict=True)]
    return {
        key: torch.stack([group.flatten(1).sum(1) for group in groups], 1).numpy() for key, groups in values.items()
    }


def variation(model: VDVAE, pixels: Tensor) -> np.ndarray:
    """‖z_l − z̄_l‖² by image and group: (7, 5)."""
    latents = [group.latent.flatten(1).numpy() for group in groups_of(one_pass(model, pixels)[0])]
    return np.stack([((z - z.mean(0)) ** 2).sum(1) for z in latents], axis=1)


def levels_of(values: np.ndarray) -> list[np.ndarray]:
    """Total, the resolutions 1, 4 and 8, and the five groups, of (N, L): (N,) each."""
    return [values.sum(1), values[:, 0], values[:, 1:3].sum(1), values[:, 3:].sum(1), *values.T]


def found_levels(quantity: Quantity) -> Sequence:
    assert list(quantity.resolutions) == [1, 4, 8]
    return [quantity.total, *quantity.resolutions.values(), *quantity.groups]


def test_equal_to_full_second_passes(models: Models, world: World) -> None:
    model, before, pixels = models
    expected = by_hand(model, before, pixels)
    found = measured(model, pixels, world, before)
    added = [key for key in expected if key != "innovation"]
    assert {key for key in found if "r2" not in key} == set(added)
    for key in added:
        values = expected[key] / model.dimensions
        for level, measurement in zip(levels_of(values), found_levels(found[key]), strict=True):
            assert measurement.value == pytest.approx(level.mean(), rel=1e-8), key
            assert measurement.standard_error == pytest.approx(level.std(ddof=1) / math.sqrt(7), rel=1e-6), key
            assert measurement.images == 7


def test_r2_is_that_of_all_latents_at_once(models: Models, world: World) -> None:
    model, before, pixels = models
    expected = by_hand(model, before, pixels)
    found = measured(model, pixels, world)
    for image, squares in SQUARES.items():
        errors = levels_of(expected[squares])
        baselines = {
            "latent": levels_of(variation(model, pixels)),
            "innovation": levels_of(expected["innovation"]),
        }
        for name, levels in baselines.items():
            quantity = found[f"{name}_r2_{image}"]
            for error, baseline, measurement in zip(errors, levels, found_levels(quantity), strict=True):
                ratio = error.sum() / baseline.sum()
                assert measurement.value == pytest.approx(1 - ratio, rel=1e-8)
                residual = (error - ratio * baseline).std(ddof=1) / math.sqrt(7) / baseline.mean()
                stated = pytest.approx(residual, rel=1e-6) if name == "innovation" else None
                assert measurement.standard_error == stated


def test_a_collapsed_model_gives_nothing_back(collapsed_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measured(collapsed_model, pixels, world)
    for key, quantity in found.items():
        if key.startswith(("recovered", "innovation", "lr_information")):
            assert [measurement.value for measurement in found_levels(quantity)] == [0.0] * 9


def test_a_group_that_never_moves_has_no_r2(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    with torch.no_grad():
        block = small_model.decoder.blocks[0]
        block.posterior.expand.weight.zero_()
        block.posterior.expand.bias.fill_(0.1)
        block.posterior.expand.bias[3:].fill_(-800)  # the scale underflows to 0
    found = measured(small_model, pixels, world)["latent_r2_sampled_image"]
    assert math.isnan(found.groups[0].value)
    assert math.isnan(found.resolutions[1].value)
    assert all(math.isfinite(measurement.value) for measurement in (found.total, *found.groups[1:]))


def test_one_image_has_no_variation(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measured(small_model, pixels[:1], world)
    assert math.isnan(found["latent_r2_mean_image"].total.value)
    assert math.isfinite(found["innovation_r2_mean_image"].total.value)
    assert found["innovation_r2_mean_image"].total.standard_error is None


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (1, 7), (2, 2), (3, 4)])
def test_batches_and_processes_do_not_matter(
    models: Models, world: World, in_worlds: Callable[..., list[dict[str, Quantity]]], size: int, batch: int
) -> None:
    model, before, pixels = models
    expected = numbers_of(measured(model, pixels, world, before).values())
    for found in in_worlds(size, lambda one: measured(model, pixels, one, before, batch)):
        others = numbers_of(found.values())
        assert list(others) == list(expected)
        for key, numbers in others.items():
            np.testing.assert_allclose(numbers, expected[key], rtol=1e-7, err_msg=key)


@pytest.mark.parametrize("image", ["mean", "sample"])
def test_recovered_is_minus_the_loss_of_training(small_model: VDVAE, pixels: Tensor, world: World, image: str) -> None:
    noise = PassNoise(small_model, 7, CPU)
    noise.draw_rows([noise_key("evaluate", SEED, number) for number in range(7)])
    passed = small_model.infer(pixels.double(), noise.posterior, keep_contexts=True)
    loss = reconstruct_latents(ObjectiveSettings(lr_image=image), small_model, passed, noise.image)
    key = {"mean": "recovered_mean_image", "sample": "recovered_sampled_image"}[image]
    found = measured(small_model, pixels, world)[key].total
    assert found.value == pytest.approx(-loss.mean().item() / 192, rel=1e-9)
    assert found.standard_error == pytest.approx(loss.std().item() / math.sqrt(7) / 192, rel=1e-9)


def test_passes_are_shared(models: Models, world: World) -> None:
    """A batch: one posterior pass, three images encoded, and as much again for the other encoder, its latents given."""
    model, before, pixels = models
    modules = (model.encoder, model.decoder, before.encoder, before.decoder)
    calls = [count_calls(module) for module in modules]
    measured(model, pixels, world, before, batch=7)
    assert [counter.count for counter in calls] == [4, 1, 3, 1]
