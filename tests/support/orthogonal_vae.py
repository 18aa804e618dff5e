"""A linear-Gaussian VAE of two latent groups, whose responses, posterior and information are known in closed form.

x = Σ_k gain_k · z_k · pattern_k + noise, with z_k ~ N(0, σ_p²). The patterns are orthogonal, and each is in one band.

Shapes: B images, N = 16 pixels, Z = 6 latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from plain_vae import GaussianImages
from torch import Tensor, nn

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass, Latents, LatentSource, latent_from

BAND_OF_LATENT = (1, 2, 4, 4, 4, 4)


@dataclass(frozen=True)
class OrthogonalConfig:
    """The settings of a `OrthogonalVAE`."""

    gains: tuple[float, ...] = (0.2, 0.1, 0.3, 0.15, 0.0, 0.0)
    """Of the two latents of the first group, then of the four of the second."""
    prior_scale: float = 0.5
    noise_scale: float = 0.1
    image_size: int = 4
    image_channels: int = 1


class OrthogonalVAE(LatentModel):
    """Two groups, 2 latents at 1×1 and 1 at each place of 2×2."""

    patterns: Tensor
    """(Z, N): the mean, left against right, and a chessboard in each quarter of the image."""

    def __init__(self, config: OrthogonalConfig) -> None:
        super().__init__(config)
        patterns = torch.zeros(6, 4, 4)
        patterns[0] = 1
        patterns[1] = torch.tensor([1.0, 1.0, -1.0, -1.0])
        for quarter, (row, column) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
            patterns[2 + quarter, row : row + 2, column : column + 2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        self.register_buffer("patterns", patterns.flatten(1))
        self.encoder = nn.Linear(16, 12)

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        return (2, 1, 1), (1, 2, 2)

    @property
    def information(self) -> Tensor:
        """The nats that the image says about each latent: (Z,)."""
        signal = torch.tensor(self.config.gains) * self.config.prior_scale / self.config.noise_scale
        return 0.5 * torch.log1p(signal.square() * self.patterns.square().sum(1))

    def exact_reader(self, passed: LatentPass, image: Tensor) -> tuple[DiagonalGaussian, ...]:
        """p(z_l | x), which does not depend on z_<l, because the patterns are orthogonal."""
        gain, width = image.new_tensor(self.config.gains), self.config.prior_scale**2
        total = width * gain.square() * self.patterns.square().sum(1) + self.config.noise_scale**2
        mean = width * gain / total * (image.flatten(1) @ self.patterns.to(image).mT)
        log_scale = (0.5 * torch.log(width * self.config.noise_scale**2 / total)).expand_as(mean)
        return tuple(
            DiagonalGaussian(one.unflatten(1, shape), scale.unflatten(1, shape))
            for one, scale, shape in zip(
                mean.split([2, 4], 1), log_scale.split([2, 4], 1), self.latent_shapes, strict=True
            )
        )

    def encode(self, levels: Tensor) -> Tensor:
        numbers: Tensor = self.encoder(self.pixel_scale.input_from_levels(levels).flatten(1))
        return numbers

    def posterior(self, group: int, latents: Latents, features: Tensor) -> DiagonalGaussian:
        numbers = features.unflatten(1, (2, 6)).split([2, 4], dim=2)[group]
        return DiagonalGaussian(*numbers.unflatten(2, self.latent_shapes[group]).unbind(1))

    def top_down(
        self,
        sources: Sequence[LatentSource],
        batch: int,
        features: Tensor | None = None,
        *,
        keep_contexts: bool = False,
    ) -> LatentPass:
        nothing = Latents((), (), (), ())
        posteriors = () if features is None else tuple(self.posterior(group, nothing, features) for group in range(2))
        latents, priors = [], []
        for group, source in enumerate(sources):
            zeros = self.weight.new_zeros(batch, *self.latent_shapes[group])
            priors.append(DiagonalGaussian(zeros, zeros + math.log(self.config.prior_scale)))
            latents.append(latent_from(source, priors[-1], posteriors[group] if posteriors else None))
        given = torch.cat([latent.flatten(1) for latent in latents], dim=1) * latents[0].new_tensor(self.config.gains)
        mean = (given @ self.patterns.to(given)).view(batch, 1, 4, 4)
        scale = mean.new_tensor(math.log(self.config.noise_scale))
        return LatentPass(tuple(latents), tuple(priors), posteriors, (), GaussianImages(mean, scale))
