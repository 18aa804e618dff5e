"""p(x|z) of whole images, in nats of 8-bit levels, so that the bounds of all likelihoods compare.

The networks of the shallow study compute with pixels in [0, 1]; targets lie in [−1, 1]. A density's nats are those of
its mass on one level, as if the density were constant over it. This is exact enough where the standard deviation is a
few levels or more.

Shapes: B images, C channels, H W resolution.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vdvae_lr.model.gaussian import DiagonalGaussian

_LEVEL = 2 / 255  # distance of two levels on the target scale
_MOMENTUM = 0.1  # of the running variance, as in torch's batch normalisation
LEAST_VARIANCE = (1 / 255) ** 2 / 12
"""Of a pixel in [0, 1]: that of a number rounded to levels. A smaller one would gain nothing but a spike."""


class GaussianPixels:
    """N(pixels, variance) with one variance for all numbers.

    Args:
        pixels: the mean in [0, 1], (B, C, H, W); it may leave the interval.
        variance: (), of pixels in [0, 1].
    """

    def __init__(self, pixels: Tensor, variance: Tensor) -> None:
        self._mean = 2 * pixels - 1
        self._variance = variance

    def _gaussian(self, variance: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self._mean, (0.5 * variance.log() + math.log(2)).expand_as(self._mean))

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of target images in nats, (B, C, H, W)."""
        return self._gaussian(self._variance).log_prob(image) + math.log(_LEVEL)

    def mean(self) -> Tensor:
        """The mean image on the target scale. It may leave [−1, 1]."""
        return self._mean

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        """A draw on the target scale, cut to [−1, 1]; `noise` is one uniform tensor (B, C, H, W)."""
        normal = torch.special.ndtri(noise[0].clamp(1e-6, 1 - 1e-6))
        return self._gaussian(self._variance).sample(normal).clamp(-1, 1)


class OptimalGaussianPixels(GaussianPixels):
    """A Gaussian whose variance is the mean squared error (σ-VAE, Rybkin, Daniilidis, Levine 2021).

    In training that is the error of the images computed together, the variance with the highest likelihood. Then
    `log_prob` moves `running` () towards it. Everything else, samples and evaluation, uses `running`.
    """

    def __init__(self, pixels: Tensor, running: Tensor, *, training: bool) -> None:
        super().__init__(pixels, running)
        self._running = running
        self._training = training

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of target images in nats, (B, C, H, W)."""
        if not self._training:
            return super().log_prob(image)
        variance = ((image - self._mean).detach() / 2).square().mean().clamp(min=LEAST_VARIANCE)
        self._running.lerp_(variance.to(self._running), _MOMENTUM)
        return self._gaussian(variance).log_prob(image) + math.log(_LEVEL)


class BernoulliPixels:
    """Black or white, of images whose levels from 128 up count as white: the nats are of such two-level images.

    Args:
        logits: of white, (B, C, H, W).
    """

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of target images in nats, (B, C, H, W)."""
        return -F.binary_cross_entropy_with_logits(self._logits, (image > 0).to(self._logits), reduction="none")

    def mean(self) -> Tensor:
        """The probabilities of white as an image on the target scale."""
        return 2 * self._logits.sigmoid() - 1

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        """A black-and-white draw; `noise` is one uniform tensor (B, C, H, W). Its gradient is that of the mean image
        (a straight-through estimate), for a draw of two values has none.
        """
        mean = self.mean()
        drawn = torch.where(noise[0] < self._logits.sigmoid(), 1.0, -1.0).to(mean)
        return drawn + mean - mean.detach()
