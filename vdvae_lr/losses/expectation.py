"""What a person should know of the LR term before a run starts: what theory and study expect, and what to avoid.

The numbers are those of docs/theory.md and docs/study_price.md; tests compare them with both.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from vdvae_lr.losses.objective import ObjectiveSettings

SETTLED: Mapping[str, Mapping[float, tuple[float, float]]] = {
    "prior": {
        0.03: (0.015, 0.0002),
        0.1: (0.053, 0.0027),
        0.3: (0.178, 0.0283),
        0.5: (0.347, 0.0966),
        0.8: (0.805, 0.4047),
    },
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
"""By kind of LR and α: information gained and price, in nats a closed direction (docs/theory.md; learned prior)."""
MEASURED: Mapping[str, Mapping[float, tuple[float, float]]] = {
    "prior": {0.1: (16, 0.05), 0.3: (59, 0.9)},
    "constant": {0.3: (17, 0.3), 1.0: (50, 2.8)},
}
"""The same: eq. 5 and bound of fine-tuning with LR, in % above fine-tuning without it (docs/study_price.md)."""
STUDY_ITERATIONS = 2_000
STUDY_PULL = 1.63
"""Of those rows: the sum over iterations of α × learning rate, for α 1. The rate that LR adds depends on this sum."""
_SAMPLES = 1_000
_DEAR_FROM = 1.0
_LONG_RUN = 10_000  # iterations; shorter runs end long before a large α has its full effect


def notices(settings: ObjectiveSettings, run_iterations: int, lr_at: Callable[[int, int], float]) -> list[str]:
    """Sentences for the person who starts a run of this length; none without LR.

    Args:
        settings: of the loss.
        run_iterations: the length of the run.
        lr_at: the learning rate of an iteration, 0, 1, …, of a run of this length.
    """
    if not settings.uses_lr:
        return []
    kind = "prior" if settings.lr_latents == "prior" else settings.lr_target
    plain = (settings.lr_form, settings.lr_reduction, settings.lr_reading) == ("information", "sum", "full")
    pull = _pull(settings, run_iterations, lr_at) if plain else 0.0
    found = [_expectation(settings.alpha_T, kind, run_iterations, pull)] if plain else []
    if settings.lr_reduction == "sum" and settings.alpha_T >= _DEAR_FROM and run_iterations >= _LONG_RUN:
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


def _expectation(alpha: float, kind: str, iterations: int, pull: float) -> str:
    said = f"What to expect of α {alpha:g} over {iterations:,} iterations: "
    settled = SETTLED[kind]
    if alpha <= max(settled):
        gain, price = (
            float(np.interp(alpha, [0, *settled], [0, *each])) for each in zip(*settled.values(), strict=True)
        )
        said += (
            f"once settled, {gain:.2g} nats of information for {price:.2g} nats of the bound in each closed latent "
            "direction; after that, pixel noise moves into latents while the run lasts (docs/theory.md)"
        )
    else:
        said += "the theory knows no cheap end of it (docs/theory.md)"
    near = min(MEASURED.get(kind, {}), key=lambda each: abs(each - alpha), default=0.0)
    if near and near / 2 <= alpha <= 2 * near:
        gain, price = MEASURED[kind][near]
        said += (
            f"; in {STUDY_ITERATIONS:,} iterations of fine-tuning, α {near:g} gave a small model {gain:g}% more eq. 5 "
            f"for {price:g}% of the bound, at a sum of α × learning rate of {near * STUDY_PULL:.2g}; this run's is "
            f"{pull:.2g} (docs/study_price.md)"
        )
    return f"{said}."
