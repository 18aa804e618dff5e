"""The discretised logistic mixture p(x|z): log-probability, mean, and reparameterised samples.

This is the likelihood of PixelCNN++ (Salimans et al. 2017) as VDVAE uses it. Each pixel has K components. With three
channels, the mean of green depends linearly on red, and that of blue on red and green. The numbers of a pixel are, in
this order: K logits; then for each channel K means, K log-scales and, with three channels, K coefficients before tanh
(slots r→g, r→b, g→b).

Shapes: B batch, C image channels (1 or 3), K components, H W resolution. Images are on the target scale [−1, 1].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from vdvae_lr.model.precision import full_precision

MIN_LOG_SCALE = -7.0
DENSITY_BELOW_MASS = 1e-5  # a bin with less mass takes the density at its centre: log(mass) would lose all precision
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


WithSlopes = Callable[[Tensor, Tensor, Bins], tuple[Tensor, Tensor]]
"""From parameters (B, numbers, H, W), an image (B, C, H, W) and bins: log p(x|z) per pixel (B, H, W), and its
derivatives by the parameters (B, numbers, H, W)."""


class LogisticMixture:
    """p(x|z) for a batch of images, from the output convolution's numbers.

    Args:
        parameters: (B, K · parameters_per_component(C), H, W).
        channels: C, 1 or 3.
        bins: how values are discretised.
        kernel: what computes log p(x|z) where its gradient is wanted; None: the plain formula.
    """

    def __init__(self, parameters: Tensor, channels: int, bins: Bins, kernel: WithSlopes | None = None) -> None:
        self._parameters = full_precision(parameters)
        self._channels = channels
        self.bins = bins
        self._kernel = kernel
        self.logits, per_channel = self._views(self._parameters)  # (B, K, H, W)
        self.means = per_channel[:, :, 0]  # (B, C, K, H, W)
        self._raw_log_scales = per_channel[:, :, 1]
        self.log_scales = self._raw_log_scales.clamp(min=MIN_LOG_SCALE)
        self.coefficients = per_channel[:, :, 2].tanh() if channels == 3 else None  # slots r→g, r→b, g→b

    def _views(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B, K, H, W) and the rest (B, C, 2 or 3, K, H, W) of a tensor like the parameters."""
        components = numbers.shape[1] // parameters_per_component(self._channels)
        logits, rest = numbers.tensor_split([components], dim=1)
        return logits, rest.unflatten(1, (self._channels, -1, components))

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
        if torch.is_grad_enabled() and self._parameters.requires_grad and not image.requires_grad:
            return cast(Tensor, _LogProb.apply(self._parameters, self, image))  # type: ignore[no-untyped-call]
        return self._evaluated(image).log_prob

    def with_slopes(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) as `log_prob` has it, and its derivatives by the parameters (B, numbers, H, W)."""
        if self._kernel is not None:
            return self._kernel(self._parameters, image, self.bins)
        at = self._evaluated(image)
        return at.log_prob, self._slopes(image, at)

    def rounding_decides(self, image: Tensor) -> Tensor:
        """Whether rounding may decide between mass and density somewhere in a pixel: (B, H, W).

        There log p jumps, because the mass of a bin is within 5% of that below which its density replaces it. In
        float32 such a mass, a difference of two numbers near 1, is known to 1%.
        """
        mass = self._evaluated(image).mass
        return ((mass / DENSITY_BELOW_MASS).log().abs() < 0.05).flatten(1, 2).any(1)

    def _evaluated(self, image: Tensor) -> "_Evaluated":
        value = image.to(self.means.dtype)
        centred = value[:, :, None] - self._conditional_means(value)
        inverse_scale = (-self.log_scales).exp()
        upper = inverse_scale * (centred + self.bins.half_width)
        lower = inverse_scale * (centred - self.bins.half_width)
        below_upper, below_lower = upper.sigmoid(), lower.sigmoid()
        mass = below_upper - below_lower
        middle = inverse_scale * centred
        log_density = middle - self.log_scales - 2 * F.softplus(middle) + math.log(2 * self.bins.half_width)
        inner = torch.where(mass > DENSITY_BELOW_MASS, mass.clamp(min=1e-12).log(), log_density)
        open_below = upper - F.softplus(upper)
        open_above = -F.softplus(lower)
        edge = value[:, :, None]
        inner = torch.where(edge > self.bins.highest_above, open_above, inner)
        by_channel = torch.where(edge < self.bins.lowest_below, open_below, inner)  # (B, C, K, H, W)
        by_component = by_channel.sum(1) + self.logits.log_softmax(1)
        log_prob = torch.logsumexp(by_component, dim=1)
        return _Evaluated(log_prob, by_component, inverse_scale, middle, lower, below_upper, below_lower, mass)

    def _slopes(self, image: Tensor, at: "_Evaluated") -> Tensor:
        """The derivatives of log p(x|z) by the numbers of each pixel: (B, numbers, H, W)."""
        value = image.to(self.means.dtype)
        edge = value[:, :, None]
        open_below, open_above = edge < self.bins.lowest_below, edge > self.bins.highest_above
        by_density = (at.mass <= DENSITY_BELOW_MASS) & ~(open_below | open_above)
        # An open bin reaches to infinity, where the logistic's mass is 0 or 1. With that, one formula fits all bins
        # that have a mass, and no difference of nearly equal numbers is left in it.
        upper, lower = at.below_upper.masked_fill(open_above, 1), at.below_lower.masked_fill(open_below, 0)
        by_place = torch.where(by_density, 1 - 2 * at.middle.sigmoid(), 1 - upper - lower)
        by_width = torch.where(open_below, 1 - upper, upper * (1 - upper) / at.mass.clamp(min=DENSITY_BELOW_MASS))
        by_width = torch.where(by_density, by_place / 2, by_width)
        width = at.inverse_scale * (2 * self.bins.half_width)
        chosen = (at.by_component - at.log_prob[:, None]).exp()  # (B, K, H, W): the components' posterior
        weight = -chosen[:, None]
        slopes = torch.empty_like(self._parameters)
        into_logits, into_channels = self._views(slopes)
        torch.sub(chosen, self.logits.softmax(1), out=into_logits)
        by_mean = torch.mul(by_place * at.inverse_scale, weight, out=into_channels[:, :, 0])
        by_log_scale = (at.lower * by_place + width * by_width + by_density) * (self._raw_log_scales >= MIN_LOG_SCALE)
        torch.mul(by_log_scale, weight, out=into_channels[:, :, 1])
        if self.coefficients is not None:
            by_tanh = 1 - self.coefficients.square()
            red, green = value[:, 0, None], value[:, 1, None]
            for slot, (channel, earlier) in enumerate(((1, red), (2, red), (2, green))):
                torch.mul(by_tanh[:, slot] * by_mean[:, channel], earlier, out=into_channels[:, slot, 2])
        return slopes

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


class _Evaluated(NamedTuple):
    """What log p(x|z) was computed from. Shapes are (B, C, K, H, W), unless they are given."""

    log_prob: Tensor
    """(B, H, W)."""
    by_component: Tensor
    """log of a component's weight times its probability of the pixel: (B, K, H, W)."""
    inverse_scale: Tensor
    middle: Tensor
    """The middle of the pixel's bin, standardised; `lower` is its lower end."""
    lower: Tensor
    below_upper: Tensor
    """The mass below the bin's upper end; `below_lower` is that below its lower end."""
    below_lower: Tensor
    mass: Tensor
    """The mass of the bin."""


class _LogProb(torch.autograd.Function):
    """log p(x|z) that computes its derivatives at once and keeps nothing else for the backward pass."""

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, mixture: LogisticMixture, image: Tensor) -> Tensor:
        """(B, H, W)."""
        log_prob, slopes = mixture.with_slopes(image)
        ctx.save_for_backward(slopes)
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient by the parameters (B, numbers, H, W)."""
        (slopes,) = ctx.saved_tensors
        return gradient[:, None] * slopes, None, None
