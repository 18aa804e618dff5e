"""The three scales of an image, and what is lost between them: nothing at 8 bits, the low bits below."""

import pytest
import torch

from vdvae_lr.model.pixels import PixelScale

LEVELS = torch.arange(256.0, dtype=torch.float64)
ALL_BITS = range(1, 9)


def scale_of(bits: int) -> PixelScale:
    return PixelScale(bits, shift=-112.8666757481, scale=1 / 69.84780273)


def test_input_is_shifted_then_scaled() -> None:
    assert torch.equal(scale_of(8).input_from_levels(LEVELS), (LEVELS - 112.8666757481) * (1 / 69.84780273))


def test_eight_bit_targets_are_all_levels_and_span_the_scale() -> None:
    target = scale_of(8).target_from_levels(LEVELS)
    assert (target[0], target[-1]) == (-1, 1)
    assert torch.allclose(target.diff(), torch.full((255,), 2 / 255, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_targets_are_floored_to_the_depth(bits: int) -> None:
    """Every level has the target of the multiple of 2^(8−bits) at or below it."""
    step = 2 ** (8 - bits)
    target = scale_of(bits).target_from_levels(LEVELS)
    assert torch.equal(target, (LEVELS // step * step - 127.5) / 127.5)
    assert len(target.unique()) == 2**bits


@pytest.mark.parametrize("bits", ALL_BITS)
def test_levels_come_back_on_average(bits: int) -> None:
    """Flooring darkens by (2^(8−bits) − 1)/2 levels on average, 3.5 at 5 bits; going back adds them."""
    scale = scale_of(bits)
    error = scale.levels_from_target(scale.target_from_levels(LEVELS)) - LEVELS
    assert error.mean().abs() < 1e-12
    assert error.abs().max() <= (2 ** (8 - bits) - 1) / 2 + 1e-12


def test_the_low_bit_offset_is_three_and_a_half_levels_at_five_bits() -> None:
    assert scale_of(5).levels_from_target(torch.tensor(-1.0)) == 3.5


def test_decoded_images_reach_the_encoder_as_the_levels_they_stand_for() -> None:
    """At 8 bits the input of an image is the input of its target."""
    scale = scale_of(8)
    through_target = scale.input_from_levels(scale.levels_from_target(scale.target_from_levels(LEVELS)))
    assert torch.allclose(through_target, scale.input_from_levels(LEVELS), rtol=0, atol=1e-13)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_way_back_to_the_input_is_affine_in_the_target(bits: int) -> None:
    """x̂ carries gradients: their factor is 127.5 · scale at every depth, with no rounding on the way."""
    target = torch.linspace(-1, 1, 7, dtype=torch.float64, requires_grad=True)
    scale = scale_of(bits)
    scale.input_from_levels(scale.levels_from_target(target)).sum().backward()
    assert torch.allclose(target.grad, torch.full_like(target, 127.5 / 69.84780273), rtol=1e-14)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_rounding_keeps_every_target(bits: int) -> None:
    targets = scale_of(bits).target_from_levels(LEVELS)
    assert torch.allclose(scale_of(bits).round_target(targets), targets, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_rounding_takes_the_nearest_target(bits: int) -> None:
    """Compared with a search through all targets, also beyond both ends."""
    targets = scale_of(bits).target_from_levels(LEVELS).unique()
    values = torch.linspace(-1.2, 1.2123, 1000, dtype=torch.float64)  # none lies halfway between two targets
    nearest = targets[(values[:, None] - targets).abs().argmin(1)]
    assert torch.allclose(scale_of(bits).round_target(values), nearest, rtol=0, atol=1e-15)
