"""What LR and β should buy and cost in a linear-Gaussian VAE: the predictions of docs/theory.md.

One direction of the image has variance λ in the data. The pixel noise has variance 1 there, z ~ N(0, 1), the decoder
writes a·z, and the encoder reads q(z|x) = N(m·x, v). All values are nats of one direction; ½ log 2π is left out.
`python scripts/study/price_theory.py` prints the tables of docs/theory.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize, root
from scipy.special import log_ndtr

OPENING = 1e-2
"""The a and m from which a direction opens."""
ENDLESS = 1e3
"""An a or m beyond this has no equilibrium."""
END = 1e5
"""The time of the flow. What still moves in its second half has no equilibrium."""


@dataclass(frozen=True)
class Loss:
    """β·rate + distortion + α·LR of one direction."""

    alpha: float = 0.0
    """Weight in nats against nats. For `lr_reduction="mean"`: α divided by the latents per image number."""
    beta: float = 1.0
    form: Literal["information", "squared"] = "information"
    latents: Literal["prior", "posterior"] = "prior"
    target: Literal["given", "constant", "live"] = "constant"
    """As `lr_target`. "given": z has no gradient in LR at all, not even through x̂; the program does not offer it.
    It makes no difference to latents from the prior.
    """


@dataclass(frozen=True)
class Direction:
    """One direction of a linear-Gaussian VAE."""

    data_variance: float
    decoder: float
    encoder: float
    posterior_variance: float

    @property
    def signal_to_noise(self) -> float:
        """E = a²: how strongly the image answers to the latent."""
        return self.decoder**2

    @property
    def rate(self) -> float:
        """KL(q‖p), averaged over the data."""
        variance = self.posterior_variance
        return (self.encoder**2 * self.data_variance + variance - 1 - math.log(variance)) / 2

    @property
    def distortion(self) -> float:
        """−E log p(x|z) without ½ log 2π."""
        missed = 1 - self.decoder * self.encoder
        return (missed**2 * self.data_variance + self.decoder**2 * self.posterior_variance) / 2

    @property
    def price(self) -> float:
        """The bound above the best bound with this noise."""
        return self.rate + self.distortion - best_bound(self.data_variance)

    @property
    def information(self) -> float:
        """Eq. 5 with this encoder: E[log q(z|x) − log p(z)] for z from the prior and x from p(x|z)."""
        squares = (1 - self.decoder * self.encoder) ** 2 + self.encoder**2
        return (1 - math.log(self.posterior_variance) - squares / self.posterior_variance) / 2


def best_bound(data_variance: float) -> float:
    """The least rate + distortion: the direction is open if λ > 1, and pure noise otherwise."""
    return (math.log(data_variance) + 1) / 2 if data_variance > 1 else data_variance / 2


def prior_signal_to_noise(alpha: float, data_variance: float = 1.0) -> float:
    """E of the information form with latents from the prior: 1 + E = λ/(1 − α); 0 if that is below 1. α < 1."""
    return max(data_variance / (1 - alpha) - 1, 0.0)


def prior_price(alpha: float) -> float:
    """The price of `prior_signal_to_noise`, for every λ ≥ 1; without LR, that of β = 1 − α."""
    return (-math.log(1 - alpha) - alpha) / 2


def beta_signal_to_noise(beta: float, data_variance: float = 1.0) -> float:
    """E of β·rate + distortion without LR: λ − β, or 0."""
    return max(data_variance - beta, 0.0)


def squared_signal_to_noise(alpha: float, data_variance: float = 1.0) -> float:
    """E of the squared forms with latents from the prior: 1 + E = λ + 2α, or 0."""
    return max(data_variance + 2 * alpha - 1, 0.0)


def least_price(information: float) -> float:
    """The least price of so many nats of eq. 5 in a direction that was closed with λ = 1. No loss can pay less."""
    return information - (1 - math.exp(-2 * information)) / 2


def constant_target_limit(data_variance: float = 1.0) -> float:
    """The α at which posterior latents with a constant target lose their equilibrium: E goes to infinity there.

    As v goes to 0, r = a·m and k = m²/v stay finite. The three gradients then are zero at one α.
    """

    def gradients(unknown: np.ndarray) -> list[float]:
        r, k, alpha = unknown
        target = k * data_variance + 1  # E z²/v
        of_a = r * (1 - r) * (data_variance + alpha * target) - r**2 / k
        of_m = alpha * k - r * (1 - r) * (data_variance + alpha * target + alpha * k * data_variance)
        of_v = r**2 / k - 1 + alpha * (1 - (1 - r) ** 2 * target - k - r * (1 - r))
        return [of_a, of_m, of_v]

    start = 1 - 0.3 / max(data_variance, 1)
    return root(gradients, [start, start, 1.6], tol=1e-12).x[2]


def growth_rate(loss: Loss, data_variance: float = 1.0) -> float:
    """γ: a and m of a closed direction grow as exp(γ·t) under gradient flow on the loss of that direction.

    If it is negative, the direction stays closed. E grows as exp(2γ·t).
    """
    pull = loss.alpha * (2 if loss.form == "squared" else 1)
    coupling, hold = data_variance + pull, loss.beta * data_variance + pull
    return math.hypot((1 - hold) / 2, coupling) - (1 + hold) / 2


def negative_gradient(loss: Loss, data_variance: float, state: np.ndarray) -> np.ndarray:
    """The direction of training in (a, m, log v), with the gradients that the loss lets through."""
    a, m, log_v = state
    v, missed = math.exp(log_v), 1 - a * m
    target = 1.0 if loss.latents == "prior" else m**2 * data_variance + v  # E z²
    to_a = -m * missed * data_variance + a * v
    to_m = loss.beta * m * data_variance - a * missed * data_variance
    to_v = loss.beta * (1 - 1 / v) / 2 + a**2 / 2
    if loss.form == "information":
        weight, to_target = loss.alpha / v, loss.alpha * (missed**2 / v - 1) / 2
        to_v += loss.alpha * (1 / v - (missed**2 * target + m**2) / v**2) / 2
    else:
        weight, to_target = 2 * loss.alpha, loss.alpha * missed**2
    to_a -= weight * m * missed * target
    to_m += weight * (m - a * missed * target)
    if loss.latents == "posterior" and loss.target != "given":
        if loss.target == "constant":
            to_target = -weight * a * m * missed / 2  # z moves the image and not the target
        to_m += to_target * 2 * m * data_variance
        to_v += to_target
    return -np.array([to_a, to_m, to_v * v])


def direction_at(data_variance: float, state: np.ndarray) -> Direction:
    """The direction with this (a, m, log v)."""
    a, m, log_v = map(float, state)
    return Direction(data_variance, a, m, math.exp(log_v))


def equilibrium(loss: Loss, data_variance: float = 1.0) -> Direction | None:
    """Where training arrives from a small opening, or None if it never does.

    With a live target and α = β the scale of z is free, and the result is one of many.
    """

    def escape(_: float, state: np.ndarray) -> float:
        return ENDLESS - np.abs(state).max()

    escape.terminal = True
    flow = solve_ivp(
        lambda _, state: negative_gradient(loss, data_variance, state),
        (0, END),
        [OPENING, OPENING, 0.0],
        method="BDF",
        t_eval=(END / 2, END),
        rtol=1e-7,
        atol=1e-10,
        events=escape,
    )
    if flow.status != 0 or not np.allclose(flow.y[:, 0], flow.y[:, 1], rtol=1e-4, atol=1e-4):
        return None
    found = root(lambda state: negative_gradient(loss, data_variance, state), flow.y[:, 1], tol=1e-12)
    return direction_at(data_variance, found.x)


def learned_prior_equilibrium(loss: Loss, data_variance: float = 1.0) -> Direction | None:
    """Where training with posterior latents and a constant target settles if p(z) = N(0, P) and P is learned.

    In units of the prior's scale. P itself goes on to fall, ever more slowly, so nothing balances the pull on a.
    A learned prior changes nothing for a live target or for latents from the prior.
    """

    def balance(state: np.ndarray) -> np.ndarray:
        _, to_m, to_v = negative_gradient(loss, data_variance, state)
        return np.array([state[1] ** 2 * data_variance + math.exp(state[2]) - 1, to_m, to_v])

    start = max(data_variance - 1, 0) + loss.alpha / (1 + loss.alpha)
    found = root(balance, [math.sqrt(start), math.sqrt(start) / (1 + start), -math.log1p(start)], tol=1e-12)
    settled = found.success and found.x[0] * found.x[1] > 1e-3
    return direction_at(data_variance, found.x) if settled else None


@dataclass(frozen=True)
class SharedNoise:
    """Where one learned noise variance s for all directions comes to rest."""

    signal_to_noise: float
    noise_variance: float
    price: float
    """Of all directions together."""


def shared_noise(alpha: float, open_directions: int, closed_directions: int, data_variance: float = 1.0) -> SharedNoise:
    """Information form, latents from the prior; closed directions have no latent. Needs at least one of them."""
    moved = alpha * open_directions / closed_directions
    noise = data_variance / (1 + moved)
    price = open_directions * prior_price(alpha) + closed_directions * (moved - math.log(1 + moved)) / 2
    return SharedNoise((1 + moved) / (1 - alpha) - 1, noise, price)


@dataclass(frozen=True)
class BinnedNoise:
    """Where learned noise comes to rest in bins. Scales are in widths of a bin."""

    noise_scale: float
    posterior_scale: float
    """√v·a: the posterior's scale in the image."""
    price: float
    """Without `prior_price`, which is that of the larger variance."""


def binned_price(noise_scale: float, posterior_scale: float) -> float:
    """How far the bound is above the ideal, if the data are whole bins and their scale is many bins."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    place = np.abs(posterior_scale * nodes)
    above, below = log_ndtr((0.5 - place) / noise_scale), log_ndtr((-0.5 - place) / noise_scale)
    log_mass = above + np.log1p(-np.exp(np.minimum(below - above, -1e-15)))
    expected = (weights * log_mass).sum() / weights.sum()
    return -expected - math.log(2 * math.pi * math.e) / 2 - math.log(posterior_scale)


def binned_noise(alpha: float) -> BinnedNoise:
    """Information form, x̂ not rounded, Gaussian noise in bins; 0 < α < 1."""

    def loss(logs: np.ndarray) -> float:
        noise, posterior = np.exp(logs)
        return binned_price(noise, posterior) + alpha * (logs[1] + (noise / posterior) ** 2 / 2)

    found = minimize(loss, np.log([0.3, 0.4]), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    noise, posterior = map(float, np.exp(found.x))
    return BinnedNoise(noise, posterior, binned_price(noise, posterior))


def print_equilibria(data_variance: float) -> None:
    """E, information gained and price, by α."""
    before = math.log(data_variance) / 2
    for alpha in (0.03, 0.1, 0.3, 0.5, 0.8, 1.0):
        constant = Loss(alpha, latents="posterior")
        found = [
            equilibrium(Loss(alpha), data_variance),
            equilibrium(constant, data_variance),
            learned_prior_equilibrium(constant, data_variance),
            equilibrium(Loss(alpha, latents="posterior", target="live"), data_variance) if alpha < 1 else None,
            equilibrium(Loss(beta=1 - alpha), data_variance) if alpha < 1 else None,
            equilibrium(Loss(alpha, latents="posterior", target="given"), data_variance),
        ]
        cells = [
            "none" if d is None else f"{d.signal_to_noise:.3f}, {d.information - before:.3f}, {d.price:.4f}"
            for d in found
        ]
        print(f"| {alpha:g} | {' | '.join(cells)} |")


def print_tables() -> None:
    """The tables of docs/theory.md."""
    for variance in (1.0, 4.0):
        print(f"\nE, information gained, price; λ = {variance:g}")
        print("α | prior | constant | constant, learned prior | live | no LR, β = 1 − α | given\n")
        print_equilibria(variance)
    print("\nlimit of α with posterior latents and a constant target, by λ\n")
    print(" · ".join(f"{variance:g}: {constant_target_limit(variance):.2f}" for variance in (0.5, 1, 2, 4)))
    print("\ngrowth: α, γ with equal rates, γ with a fast reader, time of E from 1e-6 to 0.01\n")
    for alpha in (0.03, 0.1, 0.3, 1.0):
        rate = growth_rate(Loss(alpha))
        print(f"| {alpha:g} | {rate:.4f} | {alpha:g} | {math.log(1e4) / (2 * rate):.0f} |")
    print("\nnoise in bins: α, noise scale, posterior scale, price\n")
    for alpha in (0.03, 0.1, 0.3, 0.8):
        bins = binned_noise(alpha)
        print(f"| {alpha:g} | {bins.noise_scale:.3f} | {bins.posterior_scale:.3f} | {bins.price:.4f} |")


if __name__ == "__main__":
    print_tables()
