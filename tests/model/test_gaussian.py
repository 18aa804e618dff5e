"""Diagonal Gaussians against torch.distributions and Monte Carlo, and finite where they are stretched."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vdvae_lr.model.gaussian import DiagonalGaussian


def random_gaussian(seed: int) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    mean, log_scale = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    return DiagonalGaussian(mean, log_scale)


def as_torch(gaussian: DiagonalGaussian) -> Normal:
    return Normal(gaussian.mean, gaussian.log_scale.exp())


def test_log_prob_is_torchs() -> None:
    gaussian, value = random_gaussian(0), random_gaussian(1).mean
    assert torch.allclose(gaussian.log_prob(value), as_torch(gaussian).log_prob(value), rtol=1e-12, atol=1e-12)


def test_kl_is_torchs() -> None:
    q, p = random_gaussian(0), random_gaussian(1)
    assert torch.allclose(q.kl_to(p), kl_divergence(as_torch(q), as_torch(p)), rtol=1e-12, atol=1e-12)


def test_kl_is_the_mean_of_the_log_ratio() -> None:
    """KL(q‖p) = E_q[log q − log p], within five standard errors of 200,000 draws."""
    q = DiagonalGaussian(torch.tensor(0.3).double(), torch.tensor(-0.7).double())
    p = DiagonalGaussian(torch.tensor(-0.4).double(), torch.tensor(0.2).double())
    sample = q.sample(torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    ratio = q.log_prob(sample) - p.log_prob(sample)
    assert (ratio.mean() - q.kl_to(p)).abs() < 5 * ratio.std() / len(ratio) ** 0.5


def test_kl_to_itself_is_zero() -> None:
    gaussian = random_gaussian(0)
    assert gaussian.kl_to(gaussian).abs().max() == 0


def test_sample_is_the_reparameterised_one() -> None:
    """Its moments are those asked for, and noise 0 gives the mean."""
    gaussian, noise = random_gaussian(0), random_gaussian(1).mean
    assert torch.equal(gaussian.sample(torch.zeros_like(noise)), gaussian.mean)
    assert torch.allclose(gaussian.sample(noise), gaussian.mean + gaussian.log_scale.exp() * noise, rtol=1e-14)


def test_temperature_multiplies_the_scale() -> None:
    gaussian, noise = random_gaussian(0), random_gaussian(1).mean
    cooler = DiagonalGaussian(gaussian.mean, gaussian.log_scale + math.log(0.7))
    assert torch.allclose(gaussian.sample(noise, temperature=0.7), cooler.sample(noise), rtol=1e-13, atol=1e-14)
    assert torch.equal(gaussian.sample(noise, temperature=0.0), gaussian.mean)


@pytest.mark.parametrize("log_scale", [-30.0, 0.0, 30.0])
def test_kl_of_two_equally_extreme_scales_is_exact_and_its_gradient_finite(log_scale: float) -> None:
    """In float32 exp(2·30) and exp(−2·30) are representable, their squares are not: the difference of logs saves it."""
    q_log_scale = torch.tensor(log_scale, requires_grad=True)
    mean = torch.tensor(0.0, requires_grad=True)
    kl = DiagonalGaussian(mean, q_log_scale).kl_to(DiagonalGaussian(torch.tensor(0.0), torch.tensor(log_scale)))
    kl.backward()
    assert (kl.item(), q_log_scale.grad.item(), mean.grad.item()) == (0, 0, 0)


def test_kl_of_tiny_scales_does_not_divide_zero_by_zero() -> None:
    """exp(−60) squared is 0 in float32: σ_q²/σ_p² would be 0/0, and is e² here."""
    q = DiagonalGaussian(torch.tensor(0.0), torch.tensor(-59.0))
    p = DiagonalGaussian(torch.tensor(0.0), torch.tensor(-60.0))
    expected = 0.5 * (torch.tensor(2.0).exp() - 1) - 1
    assert torch.allclose(q.kl_to(p), expected, rtol=1e-6)


@pytest.mark.parametrize("log_scale", [-20.0, 20.0])
def test_log_prob_of_extreme_scales_is_finite(log_scale: float) -> None:
    gaussian = DiagonalGaussian(torch.tensor(1.0), torch.tensor(log_scale))
    values = torch.tensor([-1e6, 1.0, 1e6])
    assert gaussian.log_prob(values).isfinite().all()


def test_map_changes_both_parameters() -> None:
    leaf = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    constant = DiagonalGaussian(leaf + 1, leaf - 1).map(Tensor.detach)
    assert not constant.mean.requires_grad
    assert not constant.log_scale.requires_grad
    assert torch.equal(constant.mean, leaf + 1)
    assert torch.equal(constant.log_scale, leaf - 1)
