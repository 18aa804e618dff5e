"""A second kind of VAE, with no part of the VDVAE: one group of latents, two MLPs, and a Gaussian likelihood.

Shapes: B images, C channels, H W image, Z latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.one_group import OneGroupModel


@dataclass(frozen=True)
class PlainConfig:
    """The settings of a `PlainVAE`."""

    image_size: int = 4
    image_channels: int = 1
    latents: int = 4
    width: int = 32


class GaussianImages:
    """p(x|z) = N(mean, scale²)."""

    def __init__(self, mean: Tensor, log_scale: Tensor) -> None:
        self._image = DiagonalGaussian(mean, log_scale.expand_as(mean))

    def log_prob(self, image: Tensor) -> Tensor:
        return self._image.log_prob(image)

    def mean(self) -> Tensor:
        return self._image.mean

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        return self._image.sample(torch.special.ndtri(noise[0].clamp(1e-6, 1 - 1e-6))).clamp(-1, 1)


class PlainVAE(OneGroupModel, PretrainedModel, config=PlainConfig):
    """z (B, Z, 1, 1) ~ N(0, I)."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(self.dimensions, config.width),
            nn.Tanh(),
            nn.Linear(config.width, 2 * config.latents),
        )
        self.decoder = nn.Sequential(
            nn.Flatten(), nn.Linear(config.latents, config.width), nn.Tanh(), nn.Linear(config.width, self.dimensions)
        )
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def encode(self, levels: Tensor) -> DiagonalGaussian:
        numbers = self.encoder(self.pixel_scale.input_from_levels(levels))
        return DiagonalGaussian(*numbers[:, :, None, None].chunk(2, dim=1))

    def prior(self, batch: int) -> DiagonalGaussian:
        zeros = self.log_scale.new_zeros(batch, *self.latent_shapes[0])
        return DiagonalGaussian(zeros, zeros)

    def likelihood(self, latent: Tensor) -> GaussianImages:
        return GaussianImages(self.decoder(latent).view(-1, *self.image_shape).tanh(), self.log_scale)
