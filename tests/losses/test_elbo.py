"""Rate and distortion: the right sums, and together a bound on −log p(x) that the true posterior reaches."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats, per_image, rate_nats
from vdvae_lr.model.gaussian import DiagonalGaussian


def random_gaussians(seed: int, channels: tuple[int, int] = (2, 2)) -> list[DiagonalGaussian]:
    """Two groups for three images."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, channels[0], 1, 1), (3, channels[1], 4, 4)]
    return [
        DiagonalGaussian(*torch.randn(2, *shape, generator=generator, dtype=torch.float64).unbind()) for shape in shapes
    ]


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 5), (3, 2, 5, 7)])
def test_per_image_sums_everything_but_the_batch(shape: tuple[int, ...]) -> None:
    values = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    assert torch.equal(per_image(values), torch.stack([image.sum() for image in values]))


def test_rates_are_torchs_divergences_by_image_and_group() -> None:
    posteriors, priors = random_gaussians(0), random_gaussians(1)
    rates = group_rates_nats(posteriors, priors)
    assert rates.shape == (3, 2)
    for image in range(3):
        for group, (q, p) in enumerate(zip(posteriors, priors, strict=True)):
            pair = (Normal(d.mean[image], d.log_scale[image].exp()) for d in (q, p))
            assert rates[image, group].item() == pytest.approx(kl_divergence(*pair).sum().item(), rel=1e-12)


@pytest.mark.parametrize("channels", [(2, 2), (2, 3)])
def test_the_rate_is_the_sum_over_groups(channels: tuple[int, int]) -> None:
    """Also if groups have unlike numbers of channels."""
    posteriors, priors = random_gaussians(0, channels), random_gaussians(1, channels)
    expected = group_rates_nats(posteriors, priors).sum(1)
    torch.testing.assert_close(rate_nats(posteriors, priors), expected, rtol=1e-12, atol=0)


def test_a_missing_posterior_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        group_rates_nats(random_gaussians(0)[:1], random_gaussians(1))


def test_distortion_is_minus_the_log_probability_of_each_image() -> None:
    log_prob = torch.tensor([[[-1.0, -2.0]], [[-3.0, -4.0]]])
    assert distortion_nats(log_prob).tolist() == [3, 7]


# p(z) = N(0, 1), p(x|z) = N(2z, 0.5²): p(x) = N(0, 2² + 0.5²), p(z|x) = N(2x/(2² + 0.5²), 0.5²/(2² + 0.5²))
GAIN, NOISE = 2.0, 0.5
EVIDENCE = GAIN**2 + NOISE**2


def expected_bound(x: float, mean: float, log_scale: float) -> float:
    """rate + E_q[distortion] for q = N(mean, e^log_scale ²), the expectation by Gauss–Hermite quadrature."""

    def column(value: float | np.ndarray) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1)

    q = DiagonalGaussian(column(mean), column(log_scale))
    rate = group_rates_nats([q], [DiagonalGaussian(column(0.0), column(0.0))]).sum()
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    likelihood = DiagonalGaussian(GAIN * q.sample(column(nodes)), column(math.log(NOISE)))
    distortion = distortion_nats(likelihood.log_prob(column(x)))
    return (rate + distortion @ torch.from_numpy(weights / weights.sum())).item()


@pytest.mark.parametrize("x", [-3.0, 0.1, 1.7])
def test_with_the_true_posterior_the_bound_is_minus_log_p(x: float) -> None:
    exact = 0.5 * (math.log(2 * math.pi * EVIDENCE) + x**2 / EVIDENCE)
    bound = expected_bound(x, GAIN * x / EVIDENCE, math.log(NOISE / math.sqrt(EVIDENCE)))
    assert bound == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("shift", "stretch"), [(0.1, 0.0), (0.0, 0.1), (0.0, -0.1), (-0.2, 0.3)])
def test_with_any_other_posterior_it_is_higher(shift: float, stretch: float) -> None:
    x, mean, log_scale = 1.7, GAIN * 1.7 / EVIDENCE, math.log(NOISE / math.sqrt(EVIDENCE))
    assert expected_bound(x, mean + shift, log_scale + stretch) > expected_bound(x, mean, log_scale) + 1e-3
