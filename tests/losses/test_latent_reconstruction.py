"""Latent Reconstruction: its forms, what carries a gradient, and that a stored state replaces a second pass."""

from itertools import product
from typing import get_args

import pytest
import torch
from closeness import relative_error
from latent_groups import groups_of
from torch import Tensor
from torch.distributions import Normal

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.elbo import group_rates_nats
from vdvae_lr.losses.latent_reconstruction import (
    FORMS,
    FormName,
    TargetGradient,
    group_latent_reconstruction,
    latent_reconstruction,
)
from vdvae_lr.losses.objective import ObjectiveSettings, reconstruct_latents
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import Given, LatentPass
from vdvae_lr.model.noise import PassNoise

FORM_NAMES: tuple[FormName, ...] = get_args(FormName)
TARGETS: tuple[TargetGradient, ...] = get_args(TargetGradient)


# ---- the shared state: one top-down pass serves both encodings


def first_pass(model: VDVAE, levels: Tensor, noise: PassNoise, latents: str) -> LatentPass:
    if latents == "posterior":
        return model.infer(levels, noise.posterior, keep_contexts=True)
    return model.generate(len(levels), noise.prior, keep_contexts=True)


def by_a_second_pass(model: VDVAE, passed: LatentPass, noise: PassNoise, settings: ObjectiveSettings) -> Tensor:
    """L_LR as written: decode z, encode x̂, run the whole top-down pass again with z given, take its posteriors."""
    likelihood = passed.likelihood
    image = likelihood.mean() if settings.lr_image == "mean" else likelihood.sample(noise.image)
    features = model.encode(model.pixel_scale.levels_from_target(image))
    second = model.top_down([Given(group.latent) for group in groups_of(passed)], len(image), features)
    return group_latent_reconstruction(
        list(passed.latents),
        [group.posterior for group in groups_of(second)],
        [group.prior for group in groups_of(passed)],
        settings.lr_form,
        settings.lr_target,
    )


def gradients(model: VDVAE, value: Tensor) -> dict[str, Tensor]:
    """By parameter; zero where the value does not depend on it."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("image", ["sample", "mean"])
@pytest.mark.parametrize("latents", ["posterior", "prior"])
@pytest.mark.parametrize(("form", "target"), list(product(FORM_NAMES, TARGETS)))
def test_the_stored_states_give_the_value_and_gradients_of_a_second_pass(
    small_model: VDVAE,
    small_levels: Tensor,
    small_noise: PassNoise,
    form: FormName,
    target: TargetGradient,
    latents: str,
    image: str,
) -> None:
    settings = ObjectiveSettings(lr_form=form, lr_target=target, lr_image=image)
    passed = first_pass(small_model, small_levels, small_noise, latents)
    ours = reconstruct_latents(settings, small_model, passed, small_noise.image)
    plain = by_a_second_pass(small_model, passed, small_noise, settings)
    assert (ours.shape, plain.shape) == ((2,), (2, 5))
    assert relative_error(ours, plain.sum(1)) <= 1e-10
    our_gradients = gradients(small_model, ours.sum())
    for name, gradient in gradients(small_model, plain.sum()).items():
        assert relative_error(our_gradients[name], gradient) <= 1e-10, name


def test_the_decoded_image_carries_gradients_to_the_decoder(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise
) -> None:
    """With a constant target only x̂ leads to the output layer: make x̂ reveal z."""
    passed = first_pass(small_model, small_levels, small_noise, "posterior")
    for image in ("sample", "mean"):
        value = reconstruct_latents(ObjectiveSettings(lr_image=image), small_model, passed, small_noise.image).sum()
        assert gradients(small_model, value)["mixture_output.weight"].abs().max() > 0, image


# ---- the forms, on leaf tensors


def random_group(seed: int, shape: tuple[int, ...] = (2, 3, 4, 4)) -> tuple[Tensor, DiagonalGaussian, DiagonalGaussian]:
    """A latent, a re-encoded posterior and a prior, all of leaves."""
    generator = torch.Generator().manual_seed(seed)
    latent, *numbers = (torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(5))
    return latent, DiagonalGaussian(*numbers[:2]), DiagonalGaussian(*numbers[2:])


def random_groups(channels: int = 3) -> tuple[list[Tensor], list[DiagonalGaussian], list[DiagonalGaussian]]:
    """Two groups of different resolutions; the second one has `channels`."""
    latents, reencoded, priors = zip(*(random_group(0), random_group(1, (2, channels, 1, 1))), strict=True)
    return list(latents), list(reencoded), list(priors)


def test_the_forms_are_their_formulas() -> None:
    z, q, p = random_group(0)
    log_q = Normal(q.mean, q.log_scale.exp()).log_prob(z)
    log_p = Normal(p.mean, p.log_scale.exp()).log_prob(z)
    expected = {
        "information": log_p - log_q,
        "nll": -log_q,
        "standardised": ((q.mean - z) / p.log_scale.exp()) ** 2,
        "raw": (q.mean - z) ** 2,
    }
    assert set(FORMS) == set(FORM_NAMES) == set(expected)
    for name, value in expected.items():
        assert relative_error(FORMS[name](z, q, p), value) <= 1e-12, name


def test_values_are_summed_by_image_and_group() -> None:
    latents, reencoded, priors = random_groups()
    values = group_latent_reconstruction(latents, reencoded, priors, "raw")
    assert values.shape == (2, 2)
    for group, (z, q) in enumerate(zip(latents, reencoded, strict=True)):
        for image in range(2):
            assert values[image, group].item() == pytest.approx((q.mean - z)[image].square().sum().item(), rel=1e-12)


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize(("form", "target"), list(product(FORM_NAMES, TARGETS)))
def test_the_loss_is_the_sum_over_groups(form: FormName, target: TargetGradient, channels: int) -> None:
    """In value and gradient, also if groups have unlike numbers of channels."""
    found = []
    for whole in (True, False):
        latents, reencoded, priors = random_groups(channels)
        leaves = [*latents, *(numbers for d in (*reencoded, *priors) for numbers in (d.mean, d.log_scale))]
        given = (latents, reencoded, priors, form, target)
        values = latent_reconstruction(*given) if whole else group_latent_reconstruction(*given).sum(1)
        values[0].backward()
        found.append([values, *(leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_information_costs_nothing_where_the_posterior_falls_back_to_the_prior() -> None:
    z, _, p = random_group(0)
    assert FORMS["information"](z, p, p).abs().max() == 0


def test_the_papers_squared_error_is_standardised_under_a_standard_normal_prior() -> None:
    z, q, _ = random_group(0)
    standard = DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))
    assert torch.equal(FORMS["standardised"](z, q, standard), FORMS["raw"](z, q, standard))


# ---- scale: z of a learned prior has no unit


def rescaled(gaussians: list[DiagonalGaussian], scales: list[float]) -> list[DiagonalGaussian]:
    return [
        DiagonalGaussian(g.mean * scale, g.log_scale + torch.tensor(scale, dtype=torch.float64).log())
        for g, scale in zip(gaussians, scales, strict=True)
    ]


@pytest.mark.parametrize(
    ("form", "factors"),
    [("information", [1, 1]), ("standardised", [1, 1]), ("raw", [0.25, 9])],
)
def test_the_value_when_latents_priors_and_posteriors_are_rescaled_together(
    form: FormName, factors: list[float]
) -> None:
    """`information` and `standardised` do not know the scale of a group; `raw` falls with its square."""
    latents, reencoded, priors = random_groups()
    scales = [0.5, 3.0]
    before = group_latent_reconstruction(latents, reencoded, priors, form)
    scaled = [z * scale for z, scale in zip(latents, scales, strict=True)]
    after = group_latent_reconstruction(scaled, rescaled(reencoded, scales), rescaled(priors, scales), form)
    assert relative_error(after, before * torch.tensor(factors)) <= 1e-12


def test_nll_falls_by_the_log_scale_of_every_latent_number() -> None:
    latents, reencoded, priors = random_groups()
    scaled = group_latent_reconstruction([0.5 * z for z in latents], rescaled(reencoded, [0.5, 0.5]), priors, "nll")
    fall = torch.tensor([48, 3]) * torch.tensor(0.5, dtype=torch.float64).log()
    assert relative_error(scaled, group_latent_reconstruction(latents, reencoded, priors, "nll") + fall) <= 1e-12


# ---- what is held constant


def leaf_gradients(form: FormName, target: TargetGradient) -> dict[str, float]:
    """Largest gradient of L_LR in the latents, the prior's numbers and the posterior's."""
    latents, reencoded, priors = random_groups()
    group_latent_reconstruction(latents, reencoded, priors, form, target).sum().backward()
    leaves = {
        "latents": latents,
        "prior": [leaf for p in priors for leaf in (p.mean, p.log_scale)],
        "posterior": [leaf for q in reencoded for leaf in (q.mean, q.log_scale)],
    }
    return {
        name: max(0.0 if leaf.grad is None else leaf.grad.abs().max().item() for leaf in group)
        for name, group in leaves.items()
    }


@pytest.mark.parametrize("form", FORM_NAMES)
def test_a_constant_target_gives_latents_and_prior_no_gradient(form: FormName) -> None:
    largest = leaf_gradients(form, "constant")
    assert (largest["latents"], largest["prior"]) == (0, 0)
    assert largest["posterior"] > 0


@pytest.mark.parametrize("form", FORM_NAMES)
def test_a_live_target_gives_gradients_to_all_that_the_form_reads(form: FormName) -> None:
    largest = leaf_gradients(form, "live")
    assert largest["latents"] > 0
    assert largest["posterior"] > 0
    assert (largest["prior"] > 0) == (form in ("information", "standardised"))


@pytest.mark.parametrize(
    ("alpha", "target", "left"), [(0.25, "live", 0.75), (1.0, "live", 0.0), (1.0, "constant", 1.0)]
)
def test_a_live_target_takes_its_weight_from_the_priors_own_signal(
    alpha: float, target: TargetGradient, left: float
) -> None:
    """docs/method.md, the cancelled prior: E_q of what is quadratic in z is the average over z = μ ± σ."""
    _, posteriors, priors = random_groups()
    leaves = [leaf for prior in priors for leaf in (prior.mean, prior.log_scale)]
    rate = group_rates_nats(posteriors, priors).sum()
    own = torch.autograd.grad(rate, leaves, retain_graph=True)
    for side in (-1, 1):
        latents = [q.mean + side * q.log_scale.exp() for q in posteriors]
        rate = rate + alpha / 2 * group_latent_reconstruction(latents, posteriors, priors, target=target).sum()
    for found, expected in zip(torch.autograd.grad(rate, leaves), own, strict=True):
        assert (found - left * expected).abs().max() <= 1e-12 * expected.abs().max()


def test_nll_and_information_have_the_same_gradients_with_a_constant_target(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise
) -> None:
    passed = first_pass(small_model, small_levels, small_noise, "posterior")
    nll, information = (
        gradients(
            small_model,
            reconstruct_latents(ObjectiveSettings(lr_form=form), small_model, passed, small_noise.image).sum(),
        )
        for form in ("nll", "information")
    )
    assert max(relative_error(information[name], gradient) for name, gradient in nll.items()) <= 1e-12


def test_a_wrong_number_of_groups_is_an_error() -> None:
    latents, reencoded, priors = random_groups()
    with pytest.raises(ValueError, match="zip"):
        group_latent_reconstruction(latents, reencoded[:1], priors)
