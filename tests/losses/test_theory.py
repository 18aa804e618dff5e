"""docs/theory.md: linear-Gaussian VAEs, trained through the project's objective, arrive where the theory says.

The predictions are functions of scripts/study/price_theory.py. `LinearProblem` explains why four images are exact.
"""

import math
from dataclasses import replace

import numpy as np
import price_theory as theory
import pytest
import torch
from linear_vae import LinearConfig, LinearProblem, linear_problem
from price_theory import Direction, Loss
from torch import Tensor

from vdvae_lr.losses.objective import ObjectiveSettings, evaluate_objective

VARIANCES = (1.0, 1.2, 1.5, 2.0)


def settings_of(loss: Loss, **settings: object) -> ObjectiveSettings:
    form = "raw" if loss.form == "squared" else "information"
    target = "live" if loss.target == "live" else "constant"
    words = {"lr_form": form, "lr_latents": loss.latents, "lr_target": target, "alpha_T": loss.alpha}
    return ObjectiveSettings(**{"beta": loss.beta, **words, **settings})


def trained(settings: ObjectiveSettings, config: LinearConfig | None = None, steps: int = 400) -> LinearProblem:
    problem = linear_problem(VARIANCES, config or LinearConfig())
    problem.train(settings, steps)
    return problem


def assert_arrived(problem: LinearProblem, predicted: list[Direction], tolerance: float = 0.01) -> None:
    """E of every direction, eq. 5 and the price of all of them."""
    expected = torch.tensor([direction.signal_to_noise for direction in predicted], dtype=torch.float64)
    assert torch.allclose(problem.model.signal_to_noise, expected, rtol=tolerance), problem.model.signal_to_noise
    idle = problem.model.config.latents - problem.model.used
    assert idle or problem.information() == pytest.approx(sum(d.information for d in predicted), rel=tolerance)
    price = problem.bound() - sum(theory.best_bound(variance) for variance in VARIANCES)
    assert price == pytest.approx(sum(direction.price for direction in predicted), rel=tolerance)


# ---- fixed pixel noise


@pytest.mark.parametrize(
    "loss",
    [
        Loss(0.1),
        Loss(0.5),
        Loss(0.1, latents="posterior"),
        Loss(0.5, latents="posterior"),
        Loss(1.0, latents="posterior"),
        Loss(0.1, latents="posterior", target="live"),
        Loss(0.8, latents="posterior", target="live"),
        Loss(0.3, form="squared"),
        Loss(0.3, form="squared", latents="posterior"),
        Loss(0.3, form="squared", latents="posterior", target="live"),
        Loss(beta=0.7),
        Loss(0.3, beta=0.8, latents="posterior"),
    ],
    ids=str,
)
def test_training_arrives_at_the_predicted_equilibrium(loss: Loss) -> None:
    predicted = [theory.equilibrium(loss, variance) for variance in VARIANCES]
    assert_arrived(trained(settings_of(loss)), predicted)


def test_standardised_is_raw_where_the_prior_is_standard() -> None:
    problem = linear_problem(VARIANCES, LinearConfig())
    raw, standardised = (problem.terms(ObjectiveSettings(lr_form=form)).total for form in ("raw", "standardised"))
    assert raw.item() == pytest.approx(standardised.item(), rel=1e-12)


@pytest.mark.parametrize("form", ["information", "squared"])
def test_the_mean_reduction_divides_alpha_by_the_latents_of_an_image_number(form: str) -> None:
    """Three latents for each number; two of three are idle and change nothing."""
    loss = Loss(0.1, form=form)
    settings = settings_of(replace(loss, alpha=0.3), lr_reduction="mean")
    predicted = [theory.equilibrium(loss, variance) for variance in VARIANCES]
    assert_arrived(trained(settings, LinearConfig(latents=12)), predicted)


def test_gaussian_noise_leads_where_the_four_images_lead() -> None:
    """Ordinary batches with a constant rate, averaged over the second half: E of 64 equal directions, within 3%."""
    torch.manual_seed(0)
    problem = linear_problem([1.0] * 64, LinearConfig(image_size=8, latents=64))
    model, settings = problem.model, ObjectiveSettings(alpha_T=0.5)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    total, steps = torch.zeros(64, dtype=torch.float64), 400
    for step in range(steps):
        target = 1e-3 * torch.randn(256, 1, 8, 8, dtype=torch.float64)
        passed = model.infer(model.pixel_scale.levels_from_target(target), keep_contexts=True)
        optimizer.zero_grad()
        evaluate_objective(settings, model, passed, target, 0.5, [torch.rand_like(target)]).total.backward()
        optimizer.step()
        total += model.signal_to_noise if step >= steps // 2 else 0
    predicted = theory.equilibrium(Loss(0.5, latents="posterior")).signal_to_noise
    assert (total / (steps // 2)).mean().item() == pytest.approx(predicted, rel=0.03)


# ---- growth


@pytest.mark.parametrize("loss", [Loss(0.2), Loss(0.2, form="squared", latents="posterior"), Loss(0.3, beta=0.5)])
def test_a_closed_direction_opens_exponentially_at_the_predicted_rate(loss: Loss) -> None:
    problem = linear_problem((1.0, 1.0, 1.5, 1.0), LinearConfig())
    model, rate, steps = problem.model, 0.1, 150
    with torch.no_grad():
        model.decoder.fill_(1e-9)
        model.encoder.fill_(1e-9)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate * model.dimensions)
    sizes: list[Tensor] = []
    for _ in range(steps):
        optimizer.zero_grad()
        problem.terms(settings_of(loss)).total.backward()
        optimizer.step()
        sizes.append(model.decoder.detach().log())
    grown = (sizes[-1] - sizes[steps // 2]) / (steps - 1 - steps // 2)
    expected = [math.log1p(rate * theory.growth_rate(loss, variance)) for variance in (1.0, 1.5)]
    assert grown[[0, 2]].tolist() == pytest.approx(expected, rel=0.01)


def test_a_direction_below_the_threshold_stays_closed() -> None:
    problem = linear_problem((0.85, 0.95, 0.85, 0.95), LinearConfig())
    problem.train(ObjectiveSettings(alpha_T=0.1, lr_latents="prior"), 400)
    closed, opened = problem.model.signal_to_noise[:2].tolist()
    assert theory.growth_rate(Loss(0.1), 0.85) < 0 < theory.growth_rate(Loss(0.1), 0.95)
    assert closed < 1e-3 < 0.05 < opened == pytest.approx(theory.prior_signal_to_noise(0.1, 0.95), rel=0.02)


# ---- learned pixel noise


def test_without_lr_the_bound_does_not_tell_noise_from_latents() -> None:
    """One s for four equal directions, a latent for each: from two starts the bound ends equal, E does not."""
    ends = []
    for opening in (0.5, 1.5):
        problem = linear_problem((4.0,) * 4, LinearConfig(learned_noise=True))
        with torch.no_grad():
            problem.model.decoder.fill_(opening)
        problem.train(ObjectiveSettings(alpha_T=0), 400)
        assert problem.bound() == pytest.approx(4 * theory.best_bound(4.0), rel=1e-4)
        ends.append(problem.model.signal_to_noise.mean().item())
    assert ends[1] > 1.3 * ends[0]


@pytest.mark.parametrize(
    ("loss", "tolerance"), [(Loss(0.3), 0.01), (Loss(beta=0.7), 0.01), (Loss(0.3, latents="posterior"), 0.1)], ids=str
)
def test_lr_and_beta_move_noise_into_latents_at_any_noise(loss: Loss, tolerance: float) -> None:
    """The pull on log √s is α, or 1 − β, in nats a direction. The price is that of fixed noise with λ/s."""
    problem = linear_problem((1.0,) * 4, LinearConfig())
    noise = problem.model.noise_log_scale
    for noise_scale in (0.7, 0.2):
        with torch.no_grad():
            noise.fill_(math.log(noise_scale))
        problem.train(settings_of(loss))
        noise.requires_grad_(True).grad = None
        problem.terms(settings_of(loss)).total.backward()
        noise.requires_grad_(False)
        assert noise.grad.item() == pytest.approx(0.3, rel=tolerance)
        predicted = theory.equilibrium(loss, noise_scale**-2).price
        assert problem.bound() / 4 - theory.best_bound(1.0) == pytest.approx(predicted, rel=0.01)
        assert loss.latents == "posterior" or predicted == pytest.approx(theory.prior_price(0.3), rel=1e-3)


@pytest.mark.parametrize(("alpha", "latents"), [(0.1, 2), (0.5, 2), (0.3, 3)])
def test_directions_without_a_latent_hold_a_shared_noise(alpha: float, latents: int) -> None:
    problem = linear_problem((1.0,) * 4, LinearConfig(latents=latents, learned_noise=True))
    problem.train(ObjectiveSettings(alpha_T=alpha, lr_latents="prior"), 500)
    predicted = theory.shared_noise(alpha, latents, 4 - latents)
    assert problem.model.noise_log_scale.exp().square().item() == pytest.approx(predicted.noise_variance, rel=0.01)
    assert problem.model.signal_to_noise.tolist() == pytest.approx([predicted.signal_to_noise] * latents, rel=0.01)
    assert problem.bound() - 4 * theory.best_bound(1.0) == pytest.approx(predicted.price, rel=0.01)


def test_bins_cost_nothing_while_noise_is_wider_than_they_are() -> None:
    assert theory.binned_price(1.0, 1.04) < 1e-4 < 0.05 < theory.binned_price(0.1, 0.27)


def test_bins_hold_the_noise_where_the_price_of_less_is_alpha() -> None:
    """d price/d log σ = −α·(σ/τ)² at the rest, by finite differences."""
    found = theory.binned_noise(0.3)
    up, down = (theory.binned_price(found.noise_scale * math.exp(e), found.posterior_scale) for e in (1e-4, -1e-4))
    assert (down - up) / 2e-4 == pytest.approx(0.3 * (found.noise_scale / found.posterior_scale) ** 2, rel=1e-3)


# ---- a learned prior


@pytest.mark.parametrize("loss", [Loss(0.3), Loss(0.3, latents="posterior", target="live")], ids=str)
def test_a_learned_prior_changes_nothing_for_live_targets_and_latents_from_it(loss: Loss) -> None:
    predicted = [theory.equilibrium(loss, variance) for variance in VARIANCES]
    assert_arrived(trained(settings_of(loss), LinearConfig(learned_prior=True)), predicted)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_with_a_learned_prior_a_constant_target_settles_lower_and_its_scale_drifts(alpha: float) -> None:
    loss = Loss(alpha, latents="posterior")
    predicted = [theory.learned_prior_equilibrium(loss, variance) for variance in VARIANCES]
    problem = trained(settings_of(loss), LinearConfig(learned_prior=True), steps=600)
    assert_arrived(problem, predicted)
    before = problem.model.prior_log_scale.detach().clone()
    problem.train(settings_of(loss), 200)
    assert (problem.model.prior_log_scale < before - 0.05).all()


# ---- the predictions themselves


def pull_on_the_scale(target: str, posterior_log_scale: float) -> tuple[float, float]:
    """d(L_LR)/d(log c) in nats a direction, where c scales z and all that writes or reads it; and what is predicted."""
    problem = linear_problem((4.0,) * 4, LinearConfig(learned_prior=True))
    model, a, m = problem.model, 1.5, 0.5
    variance = math.exp(2 * posterior_log_scale)
    spread = m**2 * 4 + variance  # Z, and the prior fits it
    with torch.no_grad():
        model.decoder.fill_(a)
        model.encoder.fill_(m)
        model.posterior_log_scale.fill_(posterior_log_scale)
        model.prior_log_scale.fill_(0.5 * math.log(spread))
    loss = problem.terms(ObjectiveSettings(alpha_T=0.3, lr_target=target)).latent_reconstruction
    assert loss is not None
    (loss * model.dimensions / 4).backward()
    slopes = [(model.encoder, m), (model.decoder, -a), (model.posterior_log_scale, 1.0), (model.prior_log_scale, 1.0)]
    pull = sum(float(parameter.grad.sum()) * factor for parameter, factor in slopes if parameter.grad is not None)
    error, product = (1 - a * m) ** 2 * spread + m**2, a * m * spread - m**2 * (a**2 * spread + 1)
    return pull, 1 - (error + product) / variance


@pytest.mark.parametrize(("posterior_log_scale", "sign"), [(-1.0, -1), (0.5, 1)])
def test_a_reader_too_sure_of_itself_blows_up_the_scale_of_a_constant_target(
    posterior_log_scale: float, sign: int
) -> None:
    pull, predicted = pull_on_the_scale("constant", posterior_log_scale)
    assert pull == pytest.approx(predicted, rel=1e-6) and pull * sign > 0.01
    assert pull_on_the_scale("live", posterior_log_scale)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("variance", [0.8, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.8])
def test_closed_forms_are_the_numeric_equilibria(alpha: float, variance: float) -> None:
    found = [Loss(alpha), Loss(alpha, form="squared"), Loss(beta=1 - alpha)]
    numeric = [theory.equilibrium(loss, variance).signal_to_noise for loss in found]
    formulas = (theory.prior_signal_to_noise, theory.squared_signal_to_noise)
    closed = [formula(alpha, variance) for formula in formulas] + [theory.beta_signal_to_noise(1 - alpha, variance)]
    assert numeric == pytest.approx(closed, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.8])
def test_latents_from_the_prior_pay_the_least_price_and_no_other_loss_pays_less(alpha: float) -> None:
    best = theory.equilibrium(Loss(alpha))
    assert best.information == pytest.approx(-math.log(1 - alpha) / 2, rel=1e-4)
    assert best.price == pytest.approx(theory.prior_price(alpha), rel=1e-3)
    assert best.price == pytest.approx(theory.least_price(best.information), rel=1e-3)
    others = [Loss(beta=1 - alpha), Loss(alpha, form="squared", latents="posterior")]
    others += [Loss(alpha, latents="posterior", target=target) for target in ("given", "constant", "live")]
    for loss in others:
        found = theory.equilibrium(loss)
        assert found.price > theory.least_price(max(found.information, 0.0)), loss


@pytest.mark.parametrize("variance", [1.0, 4.0])
def test_a_constant_target_has_an_equilibrium_below_its_limit_only(variance: float) -> None:
    limit = theory.constant_target_limit(variance)
    below, above = (theory.equilibrium(Loss(limit * f, latents="posterior"), variance) for f in (0.9, 1.1))
    assert below.signal_to_noise > 5
    assert above is None


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_constant_target_inflates_open_directions_by_a_closed_form(alpha: float) -> None:
    found = theory.equilibrium(Loss(alpha, latents="posterior"), 256.0)
    assert 1 + found.signal_to_noise == pytest.approx(256 / (1 - alpha**2 / (1 + alpha)), rel=0.01)
    assert theory.constant_target_limit(1e4) == pytest.approx((1 + math.sqrt(5)) / 2, rel=1e-3)


def test_a_given_latent_has_an_equilibrium_up_to_129() -> None:
    given = [theory.equilibrium(Loss(alpha, latents="posterior", target="given")) for alpha in (1.25, 1.33)]
    assert given[0].signal_to_noise > 20
    assert given[1] is None


def test_eq_5_of_small_beta_is_bounded() -> None:
    values = [theory.equilibrium(Loss(beta=beta)).information for beta in (0.5, 0.618, 0.75)]
    assert max(values) == values[1] == pytest.approx(0.1226, abs=1e-4)


@pytest.mark.parametrize("loss", [Loss(1.0), Loss(1.1, latents="posterior", target="live")], ids=str)
def test_alpha_one_is_the_limit_for_latents_from_the_prior_and_for_a_live_target(loss: Loss) -> None:
    assert theory.equilibrium(loss) is None


def test_with_alpha_one_a_live_target_leaves_the_scale_of_the_latents_free() -> None:
    """Scaling a by 1/c, m by c and v by c² changes nothing: no direction of it is trained."""
    loss = Loss(1.0, latents="posterior", target="live")
    found = theory.equilibrium(loss)
    a, m, v = found.decoder / 2, found.encoder * 2, found.posterior_variance * 4
    pull = theory.negative_gradient(loss, 1.0, np.array([a, m, math.log(v)]))
    assert pull.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_constant_target_with_a_learned_prior_has_an_equilibrium_at_every_alpha() -> None:
    found = [theory.learned_prior_equilibrium(Loss(alpha, latents="posterior")) for alpha in (0.1, 1.0, 2.0, 10.0)]
    sizes = [direction.signal_to_noise for direction in found]
    assert sizes == sorted(sizes)
    assert sizes[-1] < 1
