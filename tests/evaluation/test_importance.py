"""Estimators from importance weights, on linear-Gaussian VAEs whose likelihood and posterior are known exactly.

One group: z ~ N(0, I), x = W z + b + σ ε. Two groups: z₁ ~ N(0, I), z₂ = A z₁ + s ε, x = C z₁ + D z₂ + σ ε. In both,
q is Gaussian and wrong on purpose. Everything exact comes from conditioning the joint Gaussian.
"""

import math

import numpy as np
import pytest
import torch
from closeness import relative_error
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from vdvae_lr.evaluation.importance import (
    by_group,
    effective_share,
    half_variance_nats,
    log_mean_weight,
    posterior_gap_nats,
)

LATENTS, NUMBERS, IMAGES, DRAWS = 3, 5, 4, 40_000


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(mean: Tensor, covariance: Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, covariance)


def drawn(distribution: MultivariateNormal, draws: int, seed: int) -> Tensor:
    noise = random(draws, *distribution.loc.shape, seed=seed)
    return distribution.loc + (distribution.scale_tril @ noise[..., None])[..., 0]


def given_last(joint: MultivariateNormal, value: Tensor) -> MultivariateNormal:
    """The first variables of a joint Gaussian given the last ones, (B, …)."""
    known = value.shape[-1]
    free = joint.loc.shape[-1] - known
    covariance = joint.covariance_matrix
    gain = covariance[:free, free:] @ torch.linalg.inv(covariance[free:, free:])
    mean = joint.loc[:free] + (value - joint.loc[free:]) @ gain.T
    return normal(mean, covariance[:free, :free] - gain @ covariance[free:, :free])


class OneGroup:
    def __init__(self) -> None:
        self.weight, self.bias, noise = random(NUMBERS, LATENTS, seed=0), random(NUMBERS, seed=1), 0.8
        self.noise = noise**2 * torch.eye(NUMBERS, dtype=torch.float64)
        self.prior = normal(torch.zeros(LATENTS).double(), torch.eye(LATENTS).double())
        marginal = self.weight @ self.weight.T + self.noise
        joint = torch.cat(
            [torch.cat([torch.eye(LATENTS), self.weight.T], 1), torch.cat([self.weight, marginal], 1)]
        )  # fmt: skip
        self.evidence = normal(self.bias, marginal)
        self.images = drawn(self.evidence, IMAGES, seed=2)
        self.true = given_last(normal(torch.cat([self.prior.loc, self.bias]), joint), self.images)
        self.log_evidence = self.evidence.log_prob(self.images)
        wrong = self.true.covariance_matrix.diagonal(dim1=-2, dim2=-1).diag_embed()
        self.wrong = normal(self.true.loc + 0.15, wrong)

    def log_weights(self, posterior: MultivariateNormal, draws: int) -> Tensor:
        latents = drawn(posterior, draws, seed=3)
        likelihood = normal(latents @ self.weight.T + self.bias, self.noise)
        return likelihood.log_prob(self.images) + self.prior.log_prob(latents) - posterior.log_prob(latents)


@pytest.fixture(scope="module")
def one_group() -> OneGroup:
    return OneGroup()


def test_exact_posterior_is_exact_with_one_draw(one_group: OneGroup) -> None:
    weights = one_group.log_weights(one_group.true, 1)
    assert relative_error(log_mean_weight(weights), one_group.log_evidence) < 1e-12
    assert relative_error(posterior_gap_nats(one_group.log_weights(one_group.true, 9)), torch.zeros(IMAGES)) < 1e-12


def test_bound_converges_to_the_likelihood(one_group: OneGroup) -> None:
    weights = one_group.log_weights(one_group.wrong, DRAWS)
    ratios = (weights - one_group.log_evidence).exp()
    errors = log_mean_weight(weights) - one_group.log_evidence
    assert torch.all(errors.abs() < 4 * ratios.std(0) / math.sqrt(DRAWS))
    few = log_mean_weight(weights.reshape(10, -1, IMAGES)).mean(0) - one_group.log_evidence
    assert torch.all(few < -4 * errors.abs())  # ten draws are far from it, and below


def test_gap_converges_to_the_divergence_from_the_true_posterior(one_group: OneGroup) -> None:
    weights = one_group.log_weights(one_group.wrong, DRAWS)
    exact = kl_divergence(one_group.wrong, one_group.true)
    assert exact.min() > 0.3
    assert torch.all((posterior_gap_nats(weights) - exact).abs() < 4 * weights.std(0) / math.sqrt(DRAWS) + 0.01)


def test_more_draws_are_tighter_and_none_passes_the_likelihood(one_group: OneGroup) -> None:
    """Blocks of K draws: their average bound rises with K (Jensen, for blocks within blocks, without exception)."""
    weights = one_group.log_weights(one_group.wrong, 2**16)
    found = torch.stack(
        [log_mean_weight(weights.reshape(-1, count, IMAGES).transpose(0, 1)).mean(0) for count in (1, 4, 16, 64, 256)]
    )
    assert relative_error(found[0], weights.mean(0)) < 1e-12
    assert torch.all(found.diff(dim=0) > 0)
    assert torch.all(found < one_group.log_evidence + 0.02)


def test_half_the_variance_is_the_divergence_where_log_weights_are_gaussian(one_group: OneGroup) -> None:
    """A posterior that is only shifted: log w is linear in z. Few draws do, on average, where log mean w needs many."""
    shifted = normal(one_group.true.loc + 1.0, one_group.true.covariance_matrix)
    exact = kl_divergence(shifted, one_group.true)
    assert exact.min() > 3
    found = half_variance_nats(one_group.log_weights(shifted, DRAWS).reshape(4, -1, IMAGES))
    assert torch.all((found.mean(0) - exact).abs() < 4 * found.std(0) / math.sqrt(DRAWS / 4))
    assert torch.isnan(half_variance_nats(torch.zeros(1, 2))).all()


def test_effective_share_by_hand() -> None:
    log_weights = random(6, 3, seed=4)
    weights = log_weights.exp().numpy()
    by_hand = weights.sum(0) ** 2 / (weights**2).sum(0) / 6
    np.testing.assert_allclose(effective_share(log_weights - 1e4).numpy(), by_hand, rtol=1e-9)
    assert effective_share(torch.zeros(8, 1)).item() == pytest.approx(1)
    assert effective_share(torch.tensor([[0.0], [-900.0], [-900.0], [-900.0]])).item() == pytest.approx(1 / 4)


class TwoGroups:
    """One image seen many times, each with latents z₁ of its own held."""

    def __init__(self, images: int, draws: int) -> None:
        to_second, first_to_image, second_to_image = (random(2, 2, seed=seed) for seed in (5, 6, 7))
        eye, zero = torch.eye(2).double(), torch.zeros(2, 2).double()
        # (z₁, z₂, x) as a linear map of six independent normals
        image_of_first = first_to_image + second_to_image @ to_second
        rows = [[eye, zero, zero], [to_second, 0.7 * eye, zero], [image_of_first, 0.7 * second_to_image, 0.5 * eye]]
        mixing = torch.cat([torch.cat(row, 1) for row in rows])
        covariance = mixing @ mixing.T
        self.joint = normal(torch.zeros(6).double(), covariance)
        self.prior = normal(torch.zeros(4).double(), covariance[:4, :4])
        image = random(2, seed=8)
        self.true = given_last(self.joint, image)  # p(z₁, z₂|x)
        self.true_first = normal(self.true.loc[:2], self.true.covariance_matrix[:2, :2])
        self.wrong_first = normal(self.true_first.loc + 0.15, 1.2 * self.true_first.covariance_matrix)
        order = [2, 3, 0, 1, 4, 5]  # z₂ first
        self.second_first = normal(torch.zeros(6).double(), covariance[order][:, order])
        self.image, self.draws = image.expand(images, 2), draws
        self.held = drawn(self.wrong_first, images, seed=9)

    def true_second(self, first: Tensor) -> MultivariateNormal:
        return given_last(self.second_first, torch.cat([first, self.image.expand_as(first)], -1))

    def wrong_second(self, first: Tensor) -> MultivariateNormal:
        true = self.true_second(first)
        return normal(true.loc - 0.2 + 0.3 * first, 0.8 * true.covariance_matrix)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Log-weights (K, B) of both groups' draws, and of the second's alone with z₁ held."""
        first = drawn(normal(self.wrong_first.loc.expand(len(self.held), 2), self.wrong_first.covariance_matrix),
                      self.draws, seed=10)  # fmt: skip
        wrong_first = self.wrong_first.log_prob(first)
        joint, posterior = self._second(first, seed=11)
        held = self.held.expand(self.draws, -1, -1)
        joint_of_held, posterior_of_held = self._second(held, seed=12)
        first_prior = normal(torch.zeros(2).double(), torch.eye(2).double()).log_prob(held)
        return joint - wrong_first - posterior, joint_of_held - first_prior - posterior_of_held

    def _second(self, first: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """log p(x, z₁, z₂) and log q(z₂|z₁, x) for a draw of z₂ for each z₁ (K, B, 2)."""
        posterior = self.wrong_second(first)
        second = posterior.loc + (posterior.scale_tril @ random(*first.shape, 1, seed=seed))[..., 0]
        joint = self.joint.log_prob(torch.cat([first, second, self.image.expand_as(first)], -1))
        return joint, posterior.log_prob(second)


def gaps_of(groups: TwoGroups) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    tables = groups.tables()
    return by_group([posterior_gap_nats(weights) for weights in tables]), tables


def test_group_gaps_for_the_latents_held() -> None:
    """Image by image: what follows z₁ is KL(q(z₂|z₁, x)‖p(z₂|z₁, x)) at the z₁ held."""
    groups = TwoGroups(images=5, draws=20_000)
    gaps, tables = gaps_of(groups)
    error = torch.stack([table.std(0) for table in tables]) / math.sqrt(groups.draws)
    second = kl_divergence(groups.wrong_second(groups.held), groups.true_second(groups.held))
    assert torch.all((gaps[:, 1] - second).abs() < 5 * error[1] + 0.01)
    assert second.max() > 2 * second.min() > 0  # z₁ matters
    assert relative_error(gaps.sum(1), posterior_gap_nats(tables[0])) < 1e-12


def test_group_gaps_average_to_the_chain_rule() -> None:
    """E over z₁ ~ q: group 1 adds KL(q(z₁|x)‖p(z₁|x)), and group 2 the rest of KL(q(z|x)‖p(z|x))."""
    groups = TwoGroups(images=400, draws=600)
    gaps, _ = gaps_of(groups)
    errors = gaps.std(0) / math.sqrt(len(gaps))
    first = kl_divergence(groups.wrong_first, groups.true_first)
    many = drawn(groups.wrong_first, 20_000, seed=13)
    groups.image = groups.image[:1]
    second = kl_divergence(groups.wrong_second(many), groups.true_second(many)).mean()
    assert (gaps.mean(0) - torch.stack([first, second])).abs().lt(4 * errors + 0.01).all()
    assert min(first, second) > 8 * errors.max()  # else the test could not tell them from 0
