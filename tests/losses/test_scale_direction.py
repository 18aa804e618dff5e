"""The scale trap: which losses change when a group's latents change their scale and nothing else."""

import math

import pytest
import torch
from latent_groups import groups_of
from scale_direction import move, norm_of, scale_derivatives, scale_direction
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.latent_reconstruction import group_latent_reconstruction
from vdvae_lr.losses.objective import ObjectiveSettings, ObjectiveTerms
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.training.step import batch_terms

GROUPS = range(5)
ELBO = ObjectiveSettings(alpha_T=0)
RAW_LIVE = ObjectiveSettings(lr_form="raw", lr_target="live")


class Problem:
    """The objective of the small model as its weights are now, always with the same images and noise."""

    def __init__(self, model: VDVAE, levels: Tensor, noise: PassNoise) -> None:
        self.model, self.levels, self.noise = model, levels, noise

    def terms(self, settings: ObjectiveSettings) -> ObjectiveTerms:
        return batch_terms(self.model, settings, self.levels, self.noise, 1.0)

    def reconstruction(self, settings: ObjectiveSettings) -> Tensor:
        """L_LR by image and group (B, L)."""
        passed = self.model.infer(self.levels, self.noise.posterior, keep_contexts=True)
        reencoded = self.model.reencode(passed, passed.decoded(settings.lr_image, self.noise.image))
        form, target = settings.lr_form, settings.lr_target
        return group_latent_reconstruction(passed.latents, reencoded, passed.priors, form, target)

    def derivatives(self, loss: Tensor) -> Tensor:
        """Along every group's scale direction (L,), by autograd."""
        self.model.zero_grad()
        loss.backward()
        return scale_derivatives(self.model)


@pytest.fixture
def problem(small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise) -> Problem:
    return Problem(small_model, small_levels, small_noise)


@pytest.mark.parametrize("group", GROUPS)
def test_a_step_along_the_direction_rescales_the_latent(problem: Problem, group: int) -> None:
    """To first order: z moves by ε·z, and no other group's latent moves."""
    before = groups_of(problem.model.infer(problem.levels, problem.noise.posterior))
    move(problem.model, scale_direction(problem.model, group), 1e-6)
    after = groups_of(problem.model.infer(problem.levels, problem.noise.posterior))
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        expected = old.latent * 1e-6 * (index == group)
        assert torch.allclose(new.latent - old.latent, expected, rtol=0, atol=1e-10), index


@pytest.mark.parametrize("group", GROUPS)
def test_the_bound_does_not_change_along_the_direction(problem: Problem, group: int) -> None:
    """By central finite differences along the direction made one unit long, for the same noise."""
    direction, step = scale_direction(problem.model, group), 1e-5
    unit = step / norm_of(direction).item()
    move(problem.model, direction, unit)
    above = problem.terms(ELBO).total.item()
    move(problem.model, direction, -2 * unit)
    below = problem.terms(ELBO).total.item()
    assert abs(above - below) / (2 * step) < 1e-8


def test_the_bounds_gradient_has_no_component_along_any_direction(problem: Problem) -> None:
    derivatives = problem.derivatives(problem.terms(ELBO).total)
    gradient_norm = norm_of({name: p.grad for name, p in problem.model.named_parameters()})
    assert derivatives.shape == (5,)
    assert derivatives.abs().max() < 1e-12 * gradient_norm


def test_the_derivative_is_that_of_finite_differences(problem: Problem) -> None:
    """On a loss that does change: the paper's squared error, live."""
    expected = problem.derivatives(problem.terms(RAW_LIVE).total)
    for group in GROUPS:
        direction = scale_direction(problem.model, group)
        unit = 1e-6 / norm_of(direction).item()
        move(problem.model, direction, unit)
        above = problem.terms(RAW_LIVE).total.item()
        move(problem.model, direction, -2 * unit)
        below = problem.terms(RAW_LIVE).total.item()
        move(problem.model, direction, unit)
        assert (above - below) / 2e-6 == pytest.approx(expected[group].item(), rel=1e-5)


def test_the_live_squared_error_rewards_shrinking_by_twice_its_value(problem: Problem) -> None:
    """(s·μ' − s·z)² = s²·(μ' − z)²: its derivative in log s is twice itself, group by group. This is the trap."""
    values = problem.reconstruction(RAW_LIVE)
    norms = torch.stack([norm_of(scale_direction(problem.model, group)) for group in GROUPS])
    expected = 2 * values.detach().sum(0) / norms
    assert torch.allclose(problem.derivatives(values.sum()), expected, rtol=1e-9)
    assert (expected > 0).all()


def test_nll_rewards_shrinking_by_one_nat_a_latent_number(problem: Problem) -> None:
    values = problem.reconstruction(ObjectiveSettings(lr_form="nll", lr_target="live"))
    sizes = [2 * math.prod(shape) for shape in problem.model.latent_shapes]
    norms = [norm_of(scale_direction(problem.model, group)).item() for group in GROUPS]
    expected = torch.tensor([size / norm for size, norm in zip(sizes, norms, strict=True)], dtype=torch.float64)
    assert torch.allclose(problem.derivatives(values.sum()), expected, rtol=1e-9)


@pytest.mark.parametrize("form", ["information", "standardised"])
def test_forms_in_the_priors_units_do_not_change_when_all_is_live(problem: Problem, form: str) -> None:
    loss = problem.reconstruction(ObjectiveSettings(lr_form=form, lr_target="live")).sum()
    assert problem.derivatives(loss).abs().max() < 1e-10 * loss.abs()
