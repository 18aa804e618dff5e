"""The discretised logistic mixture p(x|z): log-probability, mean, and reparameterised samples.

This is the likelihood of PixelCNN++ (Salimans et al. 2017) as VDVAE uses it. Each pixel has K components. With three
channels, the mean of green depends linearly on red, and that of blue on red and green. The numbers of a pixel are, in
this order: K logits; then for each channel K means, K log-scales and, with three channels, K coefficients before tanh
(slots r→g, r→b, g→b).

Shapes: B batch, C image channels (1 or 3), K components, H W resolution. Images are on the target scale [−1, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vdvae_lr.model.precision import full_precision

MIN_LOG_SCALE = -7.0
_DENSITY_BELOW_MASS = 1e-5  # a bin with less mass takes the density at its centre: log(mass) would lose all precision
_UNIFORM_MARGIN = 1e-5  # the published sampler keeps its uniforms this far from 0 and 1
_MAX_SAMPLED_LOG_SCALE = 40.0  # a wider logistic draws the same ±1; exp overflows above 88, and 0 · inf is NaN


@dataclass(frozen=True)
class Bins:
    """How targets partition the line: half the width of a bin, and where the open outermost bins begin."""

    half_width: float
    lowest_below: float
    highest_above: float

    @staticmethod
    def of_bits(bits: int) -> "Bins":
        """Bins of targets k·2^(8−bits)/127.5 − 1, whose masses sum to one. With 8 bits they are the published ones."""
        half_width = (1 << (8 - bits)) / 255
        top = (256 - (1 << (8 - bits))) / 127.5 - 1
        return Bins(half_width, -1 + half_width / 2, top - half_width / 2)

    @staticmethod
    def published_5bit() -> "Bins":
        """The bins of the published FFHQ-256 likelihood, on which its 0.4232 nats/dim rest.

        The masses do not sum to one: the half-width is 1/31 on a spacing of 8/127.5, and the top bin is not open (the
        top target is 0.945).
        """
        return Bins(1 / 31, -0.999, 0.999)


def parameters_per_component(channels: int) -> int:
    """The numbers of one component of a pixel: 10 with three channels, 3 with one."""
    return 1 + channels * (3 if channels == 3 else 2)


class LogisticMixture:
    """p(x|z) for a batch of images, from the output convolution's numbers.

    Args:
        parameters: (B, K · parameters_per_component(C), H, W).
        channels: C, 1 or 3.
        bins: how values are discretised.
    """

    def __init__(self, parameters: Tensor, channels: int, bins: Bins) -> None:
        batch, numbers, height, width = parameters.shape
        components = numbers // parameters_per_component(channels)
        parameters = full_precision(parameters)
        self.bins = bins
        self.logits, rest = torch.split(parameters, [components, numbers - components], dim=1)  # (B, K, H, W)
        per_channel = rest.reshape(batch, channels, -1, components, height, width)
        self.means = per_channel[:, :, 0]  # (B, C, K, H, W)
        self.log_scales = per_channel[:, :, 1].clamp(min=MIN_LOG_SCALE)
        self.coefficients = per_channel[:, :, 2].tanh() if channels == 3 else None  # slots r→g, r→b, g→b

    def _conditional_means(self, image: Tensor) -> Tensor:
        """Means of the components, given the image's earlier channels: (B, C, K, H, W)."""
        if self.coefficients is None:
            return self.means
        red, green = image[:, 0, None], image[:, 1, None]  # (B, 1, H, W)
        to_green, red_to_blue, green_to_blue = self.coefficients.unbind(1)
        mean_red, mean_green, mean_blue = self.means.unbind(1)
        blue = mean_blue + red_to_blue * red + green_to_blue * green
        return torch.stack([mean_red, mean_green + to_green * red, blue], dim=1)

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of images (B, C, H, W), in nats, per pixel: (B, H, W)."""
        value = image.to(self.means.dtype)
        centred = value[:, :, None] - self._conditional_means(value)
        inverse_scale = (-self.log_scales).exp()
        upper = inverse_scale * (centred + self.bins.half_width)
        lower = inverse_scale * (centred - self.bins.half_width)
        mass = upper.sigmoid() - lower.sigmoid()
        middle = inverse_scale * centred
        log_density = middle - self.log_scales - 2 * F.softplus(middle) + math.log(2 * self.bins.half_width)
        inner = torch.where(mass > _DENSITY_BELOW_MASS, mass.clamp(min=1e-12).log(), log_density)
        open_below = upper - F.softplus(upper)
        open_above = -F.softplus(lower)
        edge = value[:, :, None]
        inner = torch.where(edge > self.bins.highest_above, open_above, inner)
        log_prob = torch.where(edge < self.bins.lowest_below, open_below, inner)  # (B, C, K, H, W)
        return torch.logsumexp(log_prob.sum(1) + self.logits.log_softmax(1), dim=1)

    def mean(self) -> Tensor:
        """D(z): the mean of the unclipped mixture, clamped to [−1, 1]: (B, C, H, W)."""
        weights = self.logits.softmax(1)
        if self.coefficients is None:
            return (weights[:, None] * self.means).sum(2).clamp(-1, 1)
        red, green, blue = self.means.unbind(1)
        to_green, red_to_blue, green_to_blue = self.coefficients.unbind(1)
        green = green + to_green * red
        blue = blue + red_to_blue * red + green_to_blue * green
        return torch.stack([(weights * channel).sum(1) for channel in (red, green, blue)], dim=1).clamp(-1, 1)

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        """One reparameterised draw from p(x|z), not rounded: (B, C, H, W) in [−1, 1].

        Gumbel-max chooses the component, with the gradient of a softmax (straight-through, temperature 1). The logistic
        is m + s·(log u − log(1 − u)). Channels go in order, and each is clamped, as in the published sampler.

        Args:
            noise: uniform draws from (0, 1): (B, K, H, W) to choose the component, (B, C, H, W) for the position in its
                logistic.
        """
        component, position = noise
        choice = self._choose_component(component)[:, None]  # (B, 1, K, H, W)
        position = position.clamp(_UNIFORM_MARGIN, 1 - _UNIFORM_MARGIN)
        scale = (choice * self.log_scales).sum(2).clamp(max=_MAX_SAMPLED_LOG_SCALE).exp()  # (B, C, H, W)
        draw = (choice * self.means).sum(2) + scale * torch.logit(position)
        if self.coefficients is None:
            return draw.clamp(-1, 1)
        to_green, red_to_blue, green_to_blue = (choice * self.coefficients).sum(2).unbind(1)  # (B, H, W)
        red = draw[:, 0].clamp(-1, 1)
        green = (draw[:, 1] + to_green * red).clamp(-1, 1)
        blue = (draw[:, 2] + red_to_blue * red + green_to_blue * green).clamp(-1, 1)
        return torch.stack([red, green, blue], dim=1)

    def _choose_component(self, uniform: Tensor) -> Tensor:
        """One-hot choice (B, K, H, W) whose gradient is that of the softmax."""
        uniform = uniform.clamp(_UNIFORM_MARGIN, 1 - _UNIFORM_MARGIN)
        perturbed = self.logits - (-uniform.log()).log()
        hard = torch.zeros_like(perturbed).scatter_(1, perturbed.argmax(1, keepdim=True), 1.0)
        if not perturbed.requires_grad:
            return hard
        soft = perturbed.softmax(1)
        return hard + (soft - soft.detach())  # in brackets: exactly one-hot, whatever soft rounds to
