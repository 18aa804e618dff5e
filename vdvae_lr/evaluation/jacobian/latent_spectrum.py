"""What the singular values of the decoder's Jacobian say: constants, rank, and the least KL(p(z|x)‖p(z)).

docs/bi_lipschitz.md defines and derives them.

Shapes: n latents, k singular values.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-5


@dataclass(frozen=True)
class LatentSpectrum:
    """The Jacobian of D(z) at one image's latents, by one latent group or by all together."""

    latents: int
    """n."""
    movable: int
    """Numbers of the image that are not clamped: no rank is higher."""
    values: Tensor
    """(k,) float64 on the CPU, largest first; below `RANK_TOLERANCE` of the largest they are 0."""
    complete: bool
    """These are all that can differ from 0; else lower bounds of the leading ones, the others unknown."""
    converged: bool
    """The wanted ones are exact, or have residuals within the tolerance."""

    @staticmethod
    def of(latents: int, movable: int, values: Tensor, complete: bool, converged: bool = True) -> "LatentSpectrum":
        """From singular values (≥ k,) as they were computed, largest first."""
        values = torch.where(values > RANK_TOLERANCE * values[:1], values, 0.0)
        return LatentSpectrum(latents, movable, values[: min(latents, movable)].cpu(), complete, converged)

    @property
    def largest(self) -> float:
        """The Lipschitz constant of D near z; at least so much where not `complete`."""
        return self.values[0].item() if len(self.values) else 0.0

    @property
    def smallest(self) -> float:
        """Of the min(n, movable) singular values that can be positive; NaN where it is not known."""
        count = min(self.latents, self.movable)
        if count == 0:
            return 0.0
        return self.values[count - 1].item() if self.complete else math.nan

    @property
    def kappa_min(self) -> float:
        """inf ‖J v‖/‖v‖: 0 by rank where latents outnumber what can move; NaN where it is not known."""
        return 0.0 if self.latents > self.movable else self.smallest

    @property
    def local_bi_lipschitz(self) -> float:
        """L(z) = max(s_max, 1/κ_min); infinite where κ_min is 0, NaN where that is not known."""
        if self.kappa_min == 0:
            return math.inf
        return math.nan if math.isnan(self.kappa_min) else max(self.largest, 1 / self.kappa_min)

    @property
    def numerical_rank(self) -> int:
        """Singular values above `RANK_TOLERANCE` of the largest; at least so many where not `complete`."""
        return int((self.values > 0).sum().item())

    def theorem_bound_nats(self, sigma: float) -> float:
        """Σ f(s_i²/σ²)/2 ≤ KL(p(z|x)‖p(z)), f(t) = log(1+t) − t/(1+t); for a spectrum in units of σ_p.

        Values that are left out or too small only lower it.
        """
        return 0.5 * _gain((self.values / sigma).square()).sum().item()

    def constant_bound_nats(self, sigma: float) -> float:
        """The same from L(z) alone, n/2 · f(1/(L σ)²): 0 where L(z) is infinite, NaN where it is not known."""
        constant = self.local_bi_lipschitz
        return bound_from_constant_nats(self.latents, constant, sigma)


def bound_from_constant_nats(latents: int, constant: float, sigma: float) -> float:
    """What a decoder N(D(z), σ²I) with local bi-Lipschitz constant L of D has at least, for `latents` latents."""
    ratio = torch.tensor(1 / (constant * sigma) ** 2, dtype=torch.float64)
    return 0.5 * latents * _gain(ratio).item()


def _gain(ratio: Tensor) -> Tensor:
    """f(t) = log(1+t) − t/(1+t): twice the nats of a direction whose signal-to-noise ratio is t; grows with t."""
    return ratio.log1p() - ratio / (1 + ratio)
