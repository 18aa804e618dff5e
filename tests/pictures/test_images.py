"""Pictures: the right levels, shapes and noise, on one channel and three, on 8 bits and 5."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.model.pixels import PixelScale
from vdvae_lr.pictures.images import reconstructions, samples, to_levels

ALL_LEVELS = torch.arange(256.0).reshape(1, 1, 16, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_8_bit_levels_come_back(dtype: torch.dtype) -> None:
    scale = PixelScale(8, 0.0, 1.0)
    pictures = to_levels(scale, scale.target_from_levels(ALL_LEVELS.to(dtype)))
    assert pictures.dtype == np.uint8
    assert pictures.ravel().tolist() == list(range(256))


def test_5_bit_pictures_are_not_dark() -> None:
    """Each target stands for 8 levels and is shown in their middle, so the average over all levels is kept."""
    scale = PixelScale(5, 0.0, 1.0)
    shown = to_levels(scale, scale.target_from_levels(ALL_LEVELS)).astype(float)
    assert abs(shown - ALL_LEVELS.permute(0, 2, 3, 1).numpy()).max() <= 4
    assert shown.mean() == pytest.approx(ALL_LEVELS.mean().item(), abs=0.51)


def test_values_outside_are_clipped_and_others_rounded() -> None:
    target = torch.tensor([-3.0, -1.0, 0.6 / 127.5 - 1, 1.0, 1.1]).reshape(1, 1, 1, 5)
    assert to_levels(PixelScale(8, 0.0, 1.0), target).ravel().tolist() == [0, 0, 1, 255, 255]


def test_channels_come_last() -> None:
    target = torch.stack([torch.full((2, 3), value) for value in (-1.0, 0.0, 1.0)])[None]
    pictures = to_levels(PixelScale(8, 0.0, 1.0), target)
    assert pictures.shape == (1, 2, 3, 3)
    assert pictures[0, 1, 2].tolist() == [0, 128, 255]


@pytest.fixture(params=[1, 3])
def model(request: pytest.FixtureRequest, small_model: VDVAE) -> VDVAE:
    torch.manual_seed(0)
    return VDVAE(replace(small_model.config, image_channels=request.param)).double()


def test_shapes_on_any_number_of_channels(model: VDVAE) -> None:
    channels = model.config.image_channels
    pixels = torch.randint(0, 256, (2, channels, 8, 8), dtype=torch.uint8)
    original, reconstructed = reconstructions(model, pixels, seed=0)
    drawn = samples(model, 3, (1.0, 0.5), seed=0)
    assert original.shape == reconstructed.shape == (2, 8, 8, channels)
    assert [row.shape for row in drawn] == [(3, 8, 8, channels)] * 2
    assert {row.dtype for row in (original, reconstructed, *drawn)} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(original, pixels.permute(0, 2, 3, 1).numpy())


def test_reconstruction_is_the_mean_image_of_the_evaluated_latents(small_model: VDVAE, pixels: Tensor) -> None:
    noise = PassNoise(small_model, 2, torch.device("cpu"))
    noise.draw_rows([noise_key("evaluate", 4, 5), noise_key("evaluate", 4, 6)])
    passed = small_model.infer(pixels[5:].double(), noise.posterior)
    mean = passed.likelihood.mean().detach()
    expected = ((mean + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    found = reconstructions(small_model, pixels[5:], seed=4, examples=[5, 6])[1]
    np.testing.assert_array_equal(found, expected)


def test_a_sample_does_not_depend_on_how_many_are_drawn(small_model: VDVAE) -> None:
    (few,), (many,) = samples(small_model, 2, seed=0), samples(small_model, 5, seed=0)
    np.testing.assert_array_equal(few, many[:2])
    assert (many[0] != many[1]).any()


def test_temperature_0_leaves_one_mean_image(small_model: VDVAE) -> None:
    cold, warm = samples(small_model, 3, (0.0, 1.0), seed=0, image="mean")
    assert (cold == cold[:1]).all()
    assert (warm != warm[:1]).any()
