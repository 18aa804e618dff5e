"""Likelihoods of whole images: nats of levels, means and samples on the target scale."""

import math

import pytest
import torch

from vdvae_lr.model.shallow.likelihoods import LEAST_VARIANCE, BernoulliPixels, GaussianPixels, OptimalGaussianPixels

IMAGES = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PIXELS = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TARGETS = 2 * IMAGES - 1
UNIFORM = torch.rand(6, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("variance", "factor"), [(0.5, 1.0), (1.0, 0.5)])
def test_the_distortion_is_the_squared_error_and_a_constant(variance: float, factor: float) -> None:
    found = -GaussianPixels(PIXELS, torch.tensor(variance)).log_prob(TARGETS)
    constant = 0.5 * math.log(2 * math.pi * variance) + math.log(255)
    torch.testing.assert_close(found, factor * (IMAGES - PIXELS).square() + constant)


def test_a_gaussian_gives_all_levels_together_a_mass_of_one() -> None:
    levels = torch.arange(-2000, 2000, dtype=torch.float64).view(-1, 1, 1, 1)
    gaussian = GaussianPixels(torch.full_like(levels, 0.4), torch.tensor(0.01))
    assert gaussian.log_prob(levels / 127.5 - 1).exp().sum().item() == pytest.approx(1, abs=1e-6)


def test_the_optimal_variance_is_the_error_of_the_batch_and_is_remembered() -> None:
    running = torch.tensor(0.5)
    training = OptimalGaussianPixels(PIXELS, running, training=True)
    error = (IMAGES - PIXELS).square().mean()
    found = training.log_prob(TARGETS).mean()
    assert -found.item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * error.item()) + math.log(255))
    assert running.item() == pytest.approx(0.9 * 0.5 + 0.1 * error.item())
    evaluated = OptimalGaussianPixels(PIXELS, running.clone(), training=False).log_prob(TARGETS)
    torch.testing.assert_close(evaluated, GaussianPixels(PIXELS, running).log_prob(TARGETS))


def test_a_perfect_image_has_a_finite_likelihood() -> None:
    running = torch.tensor(LEAST_VARIANCE)
    assert OptimalGaussianPixels(IMAGES, running, training=True).log_prob(TARGETS).isfinite().all()


def test_the_optimal_variance_has_the_gradient_of_the_logarithm_of_the_error() -> None:
    pixels = PIXELS.clone().requires_grad_()
    likelihood = OptimalGaussianPixels(pixels, torch.tensor(0.5), training=True)
    (found,) = torch.autograd.grad(-likelihood.log_prob(TARGETS).sum(), pixels)
    (expected,) = torch.autograd.grad(0.5 * pixels.numel() * (IMAGES - pixels).square().mean().log(), pixels)
    torch.testing.assert_close(found, expected)


def test_a_bernoulli_counts_two_levels() -> None:
    logits = 4 * PIXELS - 2
    found = BernoulliPixels(logits).log_prob(TARGETS).exp()
    white = logits.sigmoid()
    torch.testing.assert_close(found, torch.where(IMAGES > 0.5, white, 1 - white))
    torch.testing.assert_close(BernoulliPixels(logits).mean(), 2 * white - 1)


def test_a_black_and_white_sample_has_the_gradient_of_the_mean() -> None:
    logits = (4 * PIXELS - 2).requires_grad_()
    sample = BernoulliPixels(logits).sample([UNIFORM])
    assert torch.equal(sample.detach().abs().round(decimals=9), torch.ones_like(sample))
    assert ((sample.detach() > 0) == (logits.sigmoid() > UNIFORM)).all()
    (found,) = torch.autograd.grad(sample.sum(), logits)
    (expected,) = torch.autograd.grad(BernoulliPixels(logits).mean().sum(), logits)
    torch.testing.assert_close(found, expected)


def test_a_gaussian_sample_stays_on_the_target_scale() -> None:
    sample = GaussianPixels(PIXELS, torch.tensor(0.5)).sample([UNIFORM])
    assert sample.abs().max() <= 1
    assert (sample.abs() < 1).any()
