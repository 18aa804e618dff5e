"""Injective decoders from gradients of convex functions (Brenier maps): LIDVAE (Wang, Blei, Cunningham 2021).

The gradient of a strictly convex function is injective. An input-convex network f gives the map ∇f; with (L/2)‖x‖²
added (Kinoshita et al. 2023, IL-LIDVAE), ‖T(x) − T(x')‖ ≥ L·‖x − x'‖ for the map T = ∇f + L·x.

The gradient is written out as a plain forward computation. So training needs no second derivative from autograd, and
evaluation keeps no graph. Shapes: B batch, N numbers, H hidden units.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.2  # of LeakyReLU below zero, as LIDVAE's paper suggests
_SPREAD = 0.5  # standard deviation of the first log-weights: units that start equal would stay nearly equal


class BrenierMap(nn.Module):
    """T(x) = ∇f(x) + L·x for an input-convex network f with two hidden layers (as in public code for LIDVAE):

        u₁ = φ(A₁x + b₁)²,  u₂ = φ(exp(P₂)u₁ + A₂x + b₂),  f = φ(exp(P₃)u₂ + A₃x + b₃),  φ = LeakyReLU.

    φ is convex and does not fall, φ² is convex, and the exponentials are positive. So f is convex in x.

    Args:
        numbers: N.
        units: H.
        inverse_lipschitz: L ≥ 0; 0 is LIDVAE.
    """

    def __init__(self, numbers: int, units: int, inverse_lipschitz: float) -> None:
        super().__init__()
        self.inverse_lipschitz = inverse_lipschitz
        self.first = nn.Linear(numbers, units)
        self.second = nn.Linear(numbers, units)
        self.last = nn.Linear(numbers, 1)
        self.log_second = nn.Parameter(_log_weights(units, units))
        self.log_last = nn.Parameter(_log_weights(1, units))

    def potential(self, x: Tensor) -> Tensor:
        """f(x) + (L/2)‖x‖², whose gradient is the map: (B, N) → (B,)."""
        last = self._layers(x, self.log_second.exp(), self.log_last.exp())[2]
        return _leaky(last).squeeze(1) + self.inverse_lipschitz / 2 * x.square().sum(1)

    def forward(self, x: Tensor) -> Tensor:
        """T(x): (B, N) → (B, N)."""
        second_weight, last_weight = self.log_second.exp(), self.log_last.exp()
        first, second, last = self._layers(x, second_weight, last_weight)
        to_second = _slope(second) * last_weight  # ∂f/∂(what enters φ), but for the last layer's own slope
        to_first = torch.mm(to_second, second_weight) * 2 * _leaky(first) * _slope(first)
        gradient = torch.addmm(self.last.weight, to_second, self.second.weight)
        gradient = torch.addmm(gradient, to_first, self.first.weight)
        return _slope(last) * gradient + self.inverse_lipschitz * x

    def _layers(self, x: Tensor, second_weight: Tensor, last_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What enters φ in each of the three layers, (B, H), (B, H), (B, 1), given exp(P₂) and exp(P₃)."""
        first = self.first(x)
        second = F.linear(_leaky(first).square(), second_weight) + self.second(x)
        return first, second, F.linear(_leaky(second), last_weight) + self.last(x)


class BrenierDecoder(nn.Module):
    """Latents → numbers of an image: a map of the latents, zeros up to the image's numbers, and a map of the image.

    It is injective, and ‖D(z) − D(z')‖ ≥ L²·‖z − z'‖. The zeros are the fixed identity matrix of LIDVAE's paper.

    Args:
        latents: Z.
        numbers: numbers of an image, at least Z.
        units: hidden units of the first map.
        image_units: hidden units of the second map.
        inverse_lipschitz: L of each map.
    """

    def __init__(self, latents: int, numbers: int, units: int, image_units: int, inverse_lipschitz: float) -> None:
        super().__init__()
        self.latent_map = BrenierMap(latents, units, inverse_lipschitz)
        self.image_map = BrenierMap(numbers, image_units, inverse_lipschitz)
        self._zeros = numbers - latents

    def forward(self, latents: Tensor) -> Tensor:
        """(B, Z) → (B, numbers)."""
        image: Tensor = self.image_map(F.pad(self.latent_map(latents), (0, self._zeros)))
        return image


def _log_weights(rows: int, columns: int) -> Tensor:
    """Logarithms of positive weights (rows, columns) whose sum over a row is about 1."""
    return _SPREAD * torch.randn(rows, columns) - math.log(columns) - _SPREAD**2 / 2


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


def _slope(x: Tensor) -> Tensor:
    """The derivative of `_leaky`; autograd treats it as constant, which it is between the kinks."""
    return torch.where(x > 0, 1.0, _SLOPE)
