"""Diagonal Gaussians: p(z_l | z_<l) and q(z_l | z_<l, x) of one latent group.

Shapes: B batch, Z latent channels, H W resolution. Every tensor is (B, Z, H, W). Results are elementwise, in nats.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, exp(log_scale)²), with independent elements."""

    mean: Tensor
    log_scale: Tensor

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """mean + temperature · scale · noise; `noise` is standard normal."""
        scale = self.log_scale.exp()
        return torch.addcmul(self.mean, scale if temperature == 1.0 else scale * temperature, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """log N(value; mean, scale²) in nats."""
        standardised = (value - self.mean) * (-self.log_scale).exp()
        return -0.5 * standardised.square() - self.log_scale - _HALF_LOG_2PI

    def kl_to(self, other: "DiagonalGaussian") -> Tensor:
        """KL(self ‖ other) in nats: one summand of the rate.

        It uses the difference of the log-scales, so that two tiny scales do not divide 0 by 0.
        """
        log_ratio = self.log_scale - other.log_scale
        standardised = (self.mean - other.mean) * (-other.log_scale).exp()
        return 0.5 * ((2 * log_ratio).exp() + standardised.square() - 1) - log_ratio

    def map(self, function: Callable[[Tensor], Tensor]) -> "DiagonalGaussian":
        """The distribution with this function of its mean and log-scale, such as `Tensor.detach`."""
        return DiagonalGaussian(function(self.mean), function(self.log_scale))
