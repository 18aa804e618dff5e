"""What is said before a run with LR starts: numbers of the theory and of the study, and what to avoid."""

import json
from typing import Any

import price_theory as theory
import pytest
from price_theory import Loss

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.losses.expectation import MEASURED, SETTLED, STUDY_PULL, notices, settled
from vdvae_lr.losses.objective import ObjectiveSettings

PRESETS = CHECKOUT_ROOT / "docs" / "studies" / "price"
STUDY = PRESETS / "fashion8"


def equilibrium(kind: str, alpha: float) -> theory.Direction:
    if kind == "constant":
        found = theory.learned_prior_equilibrium(Loss(alpha, latents="posterior", target="constant"))
    elif kind == "live":
        found = theory.equilibrium(Loss(alpha, latents="posterior", target="live"))
    else:
        found = theory.equilibrium(Loss(alpha))
    assert found is not None
    return found


TABLED = [(kind, alpha) for kind, row in SETTLED.items() for alpha in row]


@pytest.mark.parametrize(("kind", "alpha"), [*TABLED, ("prior", 0.1), ("prior", 0.8)])
def test_what_the_theory_expects_is_the_theory(kind: str, alpha: float) -> None:
    found = equilibrium(kind, alpha)
    assert settled(kind, alpha) == (pytest.approx(found.information, abs=6e-4), pytest.approx(found.price, abs=6e-5))


@pytest.mark.parametrize(("kind", "alpha"), [("constant", 0.4), ("live", 0.2)])
def test_between_two_values_the_theory_is_nearly_met(kind: str, alpha: float) -> None:
    found = equilibrium(kind, alpha)
    assert settled(kind, alpha) == (pytest.approx(found.information, rel=0.1), pytest.approx(found.price, rel=0.3))


@pytest.mark.parametrize(("kind", "alpha"), [(kind, alpha) for kind, row in MEASURED.items() for alpha in row])
def test_what_the_study_measured_is_in_its_results(kind: str, alpha: float) -> None:
    def measured(name: str, key: str) -> float:
        content = json.loads((STUDY / f"tuned-{name}-seed0.json").read_text())
        return float(content["measured"][key]["value"])

    keys = ("information_from_samples", "negative_elbo")
    gain, price = (100 * (measured(f"{kind}-{alpha:g}", key) / measured("plain", key) - 1) for key in keys)
    assert MEASURED[kind][alpha] == (round(gain), pytest.approx(price, abs=0.04))
    content = json.loads((STUDY / f"tuned-{kind}-{alpha:g}-seed0.json").read_text())
    words = ["--hps", str(PRESETS / "fashion8.toml"), *content["settings"]["words"].split()]
    settings, _ = resolve_settings(words, "train.py")
    length, lr_at = content["iters"], settings.optimisation.lr_at
    pull = sum(settings.objective.alpha_at(i, length) * lr_at(i, length) for i in range(length))
    assert pull == pytest.approx(alpha * STUDY_PULL, rel=0.01)
    assert any(f"This run's sum is {pull:.2g}." in each for each in notices(settings.objective, length, lr_at))


def said(settings: ObjectiveSettings, iterations: int) -> list[str]:
    return notices(settings, iterations, lambda iteration, length: 0.002)


def test_the_expectation_names_theory_study_and_length() -> None:
    (sentence,) = said(ObjectiveSettings(alpha_T=0.3, alpha_warmup_iters=1), 3_000)
    assert sentence == (
        "What to expect of α 0.3 over 3,000 iterations. Theory (docs/theory.md): once settled, 0.12 nats of "
        "information for 0.013 nats of the bound in each closed latent direction; then pixel noise moves into latents "
        "while the run lasts. Study (docs/study_price.md), a small model fine-tuned for 2,000 iterations: α 0.3 "
        "gave 17% more eq. 5 for 0.3% of the bound, at a sum of α × learning rate of 0.49. This run's sum is 1.8."
    )
    assert said(ObjectiveSettings(alpha_T=0), 3_000) == []


def test_an_alpha_without_a_row_nearby_or_an_end_says_what_is_known() -> None:
    (sentence,) = said(ObjectiveSettings(alpha_T=0.1, lr_target="live"), 3_000)
    assert "once settled, 0.052 nats of information for 0.0026 nats" in sentence and "Study" not in sentence
    sentence, warning = said(ObjectiveSettings(alpha_T=1, lr_latents="prior"), 3_000)
    assert "Theory (docs/theory.md): no prediction." in sentence and warning.startswith(
        "lr_latents is prior: look at the samples"
    )
    for other in ({"lr_form": "raw"}, {"beta": 0.8}, {"alpha_end_iters": 100}, {"lr_reduction": "mean"}):
        assert said(ObjectiveSettings(**other), 3_000) == []


def about(words: str, settings: ObjectiveSettings, iterations: int) -> list[str]:
    return [sentence for sentence in said(settings, iterations) if sentence.startswith(words)]


@pytest.mark.parametrize("target", ["constant", "live"])
def test_a_large_alpha_in_a_long_run_is_said(target: Any) -> None:
    (sentence,) = about("alpha_T", ObjectiveSettings(alpha_T=1, lr_target=target), 50_000)
    assert "alpha_T is 1 in a run of 50,000 iterations" in sentence and "0.1 to 0.3" in sentence
    assert ("only the run's length" in sentence) == (target == "live")  # docs/theory.md: a constant target settles
    assert about("alpha_T", ObjectiveSettings(alpha_T=0.99, lr_target=target), 50_000) == []
    assert about("alpha_T", ObjectiveSettings(alpha_T=1, lr_target=target), 9_999) == []
    assert about("alpha_T", ObjectiveSettings(alpha_T=1, lr_target=target, lr_reduction="mean"), 50_000) == []


@pytest.mark.parametrize("form", ["information", "raw"])
@pytest.mark.parametrize("standard", [False, True])
def test_a_squared_form_settles_with_a_standard_prior(form: Any, standard: bool) -> None:
    settings = ObjectiveSettings(alpha_T=1.0, lr_form=form, lr_target="live")
    found = notices(settings, 50_000, lambda *_: 1e-3, standard_prior=standard)
    assert any("only the run's length" in sentence for sentence in found) == (form == "information" or not standard)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, True),
        ({"lr_reading": "group"}, True),
        ({"lr_target": "live"}, False),
        ({"lr_latents": "prior"}, False),
        ({"alpha_T": 0.0}, False),
        ({"lr_reading": "full"}, False),
    ],
)
def test_a_low_pass_with_a_constant_target_is_warned_of(settings: dict[str, Any], said: bool) -> None:
    given = ObjectiveSettings(**{"alpha_T": 0.3, "lr_reading": 4} | settings)
    assert ["--lr_target live" in each for each in about("lr_reading", given, 10)] == [True] * said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, True),
        ({"alpha_T": 2.0}, True),
        ({"alpha_T": 0.9}, False),
        ({"lr_target": "constant"}, False),
        ({"lr_latents": "prior"}, False),
        ({"lr_form": "raw"}, False),
        ({"lr_reduction": "mean"}, False),
    ],
)
def test_a_live_target_that_holds_nothing_is_warned_of(settings: dict[str, Any], said: bool) -> None:
    given = ObjectiveSettings(**{"alpha_T": 1.0, "lr_target": "live"} | settings)
    assert ["--lr_target constant" in each for each in about("lr_target", given, 10)] == [True] * said
