"""What a person should know of the LR term before a run starts: what theory and study expect, and what to avoid.

The numbers are those of docs/theory.md and docs/study_price.md; tests compare them with both.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from vdvae_lr.losses.objective import ObjectiveSettings

SETTLED: Mapping[str, Mapping[float, tuple[float, float]]] = {
    "constant": {
        0.03: (0.015, 0.0002),
        0.1: (0.047, 0.0021),
        0.3: (0.117, 0.0134),
        0.5: (0.161, 0.0258),
        0.8: (0.201, 0.0409),
        1.0: (0.217, 0.0488),
    },
    "live": {
        0.03: (0.015, 0.0002),
        0.1: (0.052, 0.0026),
        0.3: (0.148, 0.0216),
        0.5: (0.218, 0.0490),
        0.8: (0.281, 0.0890),
    },
}
"""By target and α: information gained and price of posterior latents, in nats a closed direction (docs/theory.md; the
prior is learned)."""
MEASURED: Mapping[str, Mapping[float, tuple[float, float]]] = {
    "prior": {0.1: (16, 0.05), 0.3: (59, 0.9)},
    "constant": {0.3: (17, 0.3), 1.0: (50, 2.8)},
}
"""By kind of LR and α: eq. 5 and bound of fine-tuning, in % above fine-tuning without LR (docs/study_price.md)."""
STUDY_ITERATIONS = 2_000
STUDY_PULL = 1.63
"""Of those rows: the sum over iterations of α × learning rate, for α 1. The rate that LR adds depends on this sum."""
_SAMPLES = 1_000
_DEAR_FROM = 1.0
_LONG_RUN = 10_000  # iterations; shorter runs end long before a large α has its full effect


def notices(
    settings: ObjectiveSettings,
    run_iterations: int,
    lr_at: Callable[[int, int], float],
    *,
    standard_prior: bool = False,
) -> list[str]:
    """Sentences for the person who starts a run of this length; none without LR.

    Args:
        settings: of the loss.
        run_iterations: the length of the run.
        lr_at: the learning rate of an iteration, 0, 1, …, of a run of this length.
        standard_prior: whether the model's prior is N(0, I); squared forms then have a minimum at every α.
    """
    if not settings.uses_lr:
        return []
    kind = "prior" if settings.lr_latents == "prior" else settings.lr_target
    found = []
    form = (settings.lr_form, settings.lr_reduction, settings.lr_reading)
    # of other losses, theory and study say too little
    if form == ("information", "sum", "full") and settings.beta == 1 and not settings.alpha_end_iters:
        found.append(_expectation(settings.alpha_T, kind, run_iterations, _pull(settings, run_iterations, lr_at)))
    settles = standard_prior and settings.lr_form in ("raw", "standardised")
    strong = settings.lr_reduction == "sum" and settings.alpha_T >= _DEAR_FROM
    if strong and run_iterations >= _LONG_RUN and not settles:
        cost = "so large a weight is dear" if kind == "constant" else "only the run's length limits what it costs"
        found.append(
            f"alpha_T is {settings.alpha_T:g} in a run of {run_iterations:,} iterations: {cost}; with 0.1 to 0.3 "
            "a nat of information costs less of the bound (docs/theory.md)."
        )
    if kind == "prior":
        found.append(
            "lr_latents is prior: look at the samples while it trains, because they can become patterns; a long run "
            "destroyed its model (docs/study_price.md)."
        )
    if kind == "live" and form[:2] == ("information", "sum") and settings.alpha_T >= 1:
        found.append(
            f"lr_target is live with alpha_T {settings.alpha_T:g}: from 1 on nothing holds the scale of the latents, "
            "and the rate grows without end; take less, or --lr_target constant (docs/study_price.md)."
        )
    if kind == "constant" and settings.lr_reading != "full":
        found.append(
            f"lr_reading is {settings.lr_reading} with a constant target: the scale of the latents can run away; use "
            "--lr_target live (docs/study_price.md)."
        )
    return found


def _pull(settings: ObjectiveSettings, iterations: int, lr_at: Callable[[int, int], float]) -> float:
    """The sum over the iterations of α × learning rate, from at most `_SAMPLES` of them."""
    at = range(0, iterations, max(1, iterations // _SAMPLES))
    products = [settings.alpha_at(i, iterations) * lr_at(i, iterations) for i in at]
    return math.fsum(products) / len(products) * iterations


def settled(kind: str, alpha: float) -> tuple[float, float] | None:
    """Information gained and price in the end, in nats a closed direction; None if there is none, or it is not known.

    `kind` is "prior" for latents from the prior, else the target of posterior latents.
    """
    if kind == "prior":
        if alpha >= 1:
            return None
        return -math.log1p(-alpha) / 2, (-math.log1p(-alpha) - alpha) / 2
    known = SETTLED[kind]
    if alpha > max(known):
        return None
    gain, price = (float(np.interp(alpha, [0, *known], [0, *each])) for each in zip(*known.values(), strict=True))
    return gain, price


def _expectation(alpha: float, kind: str, iterations: int, pull: float) -> str:
    end = settled(kind, alpha)
    theory = "no prediction"
    if end is not None:
        theory = (
            f"once settled, {end[0]:.2g} nats of information for {end[1]:.2g} nats of the bound in each closed latent "
            "direction; then pixel noise moves into latents while the run lasts"
        )
    said = f"What to expect of α {alpha:g} over {iterations:,} iterations. Theory (docs/theory.md): {theory}."
    near = min(MEASURED.get(kind, {}), key=lambda each: abs(each - alpha), default=0.0)
    if near and near / 2 <= alpha <= 2 * near:
        gain, price = MEASURED[kind][near]
        said += (
            f" Study (docs/study_price.md), a small model fine-tuned for {STUDY_ITERATIONS:,} iterations: α {near:g} "
            f"gave {gain:g}% more eq. 5 for {price:g}% of the bound, at a sum of α × learning rate of "
            f"{near * STUDY_PULL:.2g}. This run's sum is {pull:.2g}."
        )
    return said
