"""Noise in the latents: none changes nothing, units are what they say, and every model gets the same noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from noise_responses import noise_response
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.noise_response import LatentNoise, image_rms, response_moments
from vdvae_lr.evaluation.task import NoiseUnit
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import Given
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.pictures.evaluation_pictures import noise_pictures
from vdvae_lr.pictures.images import reconstructions, to_levels
from vdvae_lr.processes.world import World

BatchMaker = Callable[..., list[Batch]]


def drawn(model: VDVAE, purpose: str, seed: int, count: int) -> PassNoise:
    noise = PassNoise(model, count, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key(purpose, seed, index) for index in range(count)])
    return noise


def test_no_noise_is_the_clean_reconstruction(small_model: VDVAE, pixels: Tensor) -> None:
    response = noise_response(small_model, pixels, (0.0, 0.3), seed=1)
    assert response.rms[0] == response.rms_standard_errors[0] == 0
    np.testing.assert_array_equal(response.pictures[0], reconstructions(small_model, pixels, seed=1)[1])
    assert response.rms[1] > 0


@pytest.mark.parametrize("unit", ["raw", "prior_scale"])
def test_it_begins_at_nothing_and_grows(small_model: VDVAE, pixels: Tensor, unit: NoiseUnit) -> None:
    """Decoding given latents is the same function as the clean pass: vanishing noise leads back to it."""
    rms = noise_response(small_model, pixels, (1e-20, 0.01, 0.3, 1.0), seed=0, unit=unit).rms
    assert rms[0] < 1e-9
    assert rms == sorted(rms)
    assert rms[1] > 1e-6


def decoded(
    model: VDVAE, pixels: Tensor, seed: int, scales: dict[int, float], unit: NoiseUnit
) -> tuple[Tensor, Tensor]:
    """The mean image with noise of standard deviation `scales[l]` in group l, and the clean one, step by step."""
    count = len(pixels)
    clean = model.infer(pixels.double(), drawn(model, "evaluate", seed, count).posterior)
    extra = drawn(model, "noise response", seed, count).posterior
    latents = []
    for number, (group, noise) in enumerate(zip(groups_of(clean), extra, strict=True)):
        scale = group.prior.log_scale.exp() if unit == "prior_scale" else torch.ones_like(group.latent)
        latents.append(Given(group.latent + scales.get(number, 0.0) * scale * noise))
    image = model.top_down(latents, count).likelihood.mean().detach()
    return image, clean.likelihood.mean().detach()


@pytest.mark.parametrize("groups", [None, [0], [4], [1, 3]])
@pytest.mark.parametrize("unit", ["raw", "prior_scale"])
def test_variance_unit_and_groups(
    small_model: VDVAE, pixels: Tensor, unit: NoiseUnit, groups: list[int] | None
) -> None:
    scales = dict.fromkeys(range(5) if groups is None else groups, math.sqrt(0.3))
    image, mean = decoded(small_model, pixels, 3, scales, unit)
    by_image = (image - mean).mul(127.5).square().mean((1, 2, 3)).sqrt() / 255
    response = noise_response(small_model, pixels, (0.3,), seed=3, unit=unit, groups=groups)
    assert response.rms[0] == pytest.approx(by_image.mean().item(), rel=1e-9)
    assert response.rms_standard_errors[0] == pytest.approx(by_image.std().item() / math.sqrt(7), rel=1e-9)
    np.testing.assert_array_equal(response.pictures[0], to_levels(small_model.pixel_scale, image))


@pytest.mark.parametrize("variance", [-0.1, math.nan, math.inf])
def test_what_is_no_variance_is_refused(small_model: VDVAE, pixels: Tensor, variance: float) -> None:
    with pytest.raises(InputError, match=f"a noise variance is {variance}; it must be a number from 0 up"):
        noise_pictures(small_model, pixels, (0.3, variance), seed=0)


def test_no_variance_at_all_is_refused(small_model: VDVAE, pixels: Tensor) -> None:
    with pytest.raises(InputError, match="no noise variance to measure at"):
        noise_pictures(small_model, pixels, (), seed=0)


def test_a_variance_that_is_there_twice_is_refused(small_model: VDVAE, pixels: Tensor) -> None:
    with pytest.raises(InputError, match=r"noise_variances are 0.3, 0, 0.3; name each once"):
        noise_pictures(small_model, pixels, (0.3, 0.0, 0.3), seed=0)


def test_rms_of_the_full_range_is_one() -> None:
    white, black = torch.ones(2, 1, 4, 4), -torch.ones(2, 1, 4, 4)
    assert image_rms(white, black).tolist() == [1, 1]


def test_a_decoder_that_ignores_its_latents_does_not_move(small_model: VDVAE, pixels: Tensor) -> None:
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            block.latent_projection.weight.zero_()
    assert noise_response(small_model, pixels, (1.0,), seed=0).rms == pytest.approx([0.0], abs=1e-15)


def test_another_model_gets_the_same_noise(small_model: VDVAE, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added noise is the difference between the given and the clean latents."""
    added = []
    for change in (0.0, 0.05):
        with torch.no_grad():
            for parameter in small_model.parameters():
                parameter.add_(change)
        clean = small_model.infer(pixels.double(), drawn(small_model, "evaluate", 0, 7).posterior)
        given = []
        top_down = VDVAE.top_down

        def remember(self: VDVAE, sources, batch, features=None, *, given=given, top_down=top_down, **keywords):  # type: ignore[no-untyped-def]
            given.extend(source.latent for source in sources if isinstance(source, Given))
            return top_down(self, sources, batch, features, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(VDVAE, "top_down", remember)
            noise_pictures(small_model, pixels, (0.3,), seed=0)
        added.append([latent - group.latent for latent, group in zip(given, groups_of(clean), strict=True)])
    for first, second in zip(*added, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-9)
        assert first.var().item() == pytest.approx(0.3, rel=0.7)  # the smallest group has 21 draws


def test_streamed_measurement_is_the_same_for_any_batches(
    small_model: VDVAE, pixels: Tensor, batches_of: BatchMaker, world: World
) -> None:
    conditions: list[tuple[NoiseUnit, float]] = [("raw", 0.3), ("prior_scale", 0.4)]
    expected = [noise_response(small_model, pixels, (v,), seed=2, unit=unit) for unit, v in conditions]
    for shards in ([range(7)], [[4, 5], [6, 0, 1], [2], [3]]):
        noises = [LatentNoise(variance, unit) for unit, variance in conditions]
        found = response_moments(small_model, batches_of(shards), noises, [image_rms], seed=2, world=world)
        assert found.count == 7
        np.testing.assert_allclose(found.mean, [response.rms[0] for response in expected], rtol=1e-9)
        errors = [response.rms_standard_errors[0] for response in expected]
        np.testing.assert_allclose(found.standard_error, errors, rtol=1e-9)


@pytest.mark.parametrize("at_once", [0, 7, 8, 14, 20, 1000])
def test_conditions_that_share_a_pass_are_as_by_themselves(
    small_model: VDVAE, pixels: Tensor, batches_of: BatchMaker, world: World, at_once: int
) -> None:
    conditions = [
        LatentNoise(0.3),
        LatentNoise(0.0, "prior_scale"),
        LatentNoise(0.4, "prior_scale", frozenset({1, 2})),
        LatentNoise(0.2, "raw", frozenset({4})),
        LatentNoise(0.1, "raw", frozenset()),
    ]

    def most(image: Tensor, clean: Tensor) -> Tensor:
        return (image - clean).flatten(1).amax(1)

    sizes, top_down = [], VDVAE.top_down

    def remember(self: VDVAE, sources, batch, *positional, **keywords):  # type: ignore[no-untyped-def]
        sizes.append(batch)
        return top_down(self, sources, batch, *positional, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VDVAE, "top_down", remember)
        found = response_moments(
            small_model, batches_of([range(7)]), conditions, [image_rms, most], seed=2, world=world, at_once=at_once
        )
    expected = []
    for condition in conditions:
        groups = range(5) if condition.groups is None else condition.groups
        image, clean = decoded(small_model, pixels, 2, dict.fromkeys(groups, condition.variance**0.5), condition.unit)
        expected += [image_rms(image, clean).mean().item(), (image - clean).flatten(1).amax(1).mean().item()]
    np.testing.assert_allclose(found.mean, expected, rtol=1e-9, atol=1e-15)
    assert found.mean[2:4].tolist() == [0, 0]
    assert max(sizes) <= max(7, at_once)
    assert len(sizes) == 1 + math.ceil(4 / max(1, at_once // 7))  # the clean pass, and four conditions with noise
