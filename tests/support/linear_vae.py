"""A linear-Gaussian VAE of independent directions, trained through the project's objective without sampling error.

Direction i of the image is written and read by latent i alone: p(x_i|z) = N(a_i·z_i, s), q(z_i|x) = N(m_i·x_i, v_i).
All terms of its loss are polynomials of degree 2 in data and noise. So four images with numbers ±1 that have the right
second moments give exact expectations.

Shapes: B images, N numbers of an image, K latents, S image size. N = S².
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from plain_vae import GaussianImages
from torch import Tensor, nn
from torch.nn.functional import pad

from vdvae_lr.losses.objective import ObjectiveSettings, ObjectiveTerms
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.one_group import OneGroupModel
from vdvae_lr.training.step import batch_terms

UNIT = 1e-3
"""The pixel noise's scale on the target scale [−1, 1], so that no image is clamped."""
CPU = torch.device("cpu")
OPENING = 0.1


@dataclass(frozen=True)
class LinearConfig:
    """The settings of a `LinearVAE`. Directions without a latent stay closed; latents without a direction are idle."""

    image_size: int = 2
    latents: int = 4
    image_channels: int = 1
    learned_noise: bool = False
    learned_prior: bool = False


class LinearVAE(OneGroupModel):
    """z (B, K, 1, 1) ~ N(0, P), in float64."""

    def __init__(self, config: LinearConfig) -> None:
        super().__init__(config)
        self.used = min(config.latents, self.dimensions)
        self.decoder = nn.Parameter(torch.full((self.used,), OPENING, dtype=torch.float64))
        self.encoder = nn.Parameter(torch.full((self.used,), OPENING, dtype=torch.float64))
        zeros = torch.zeros(config.latents, dtype=torch.float64)
        self.posterior_log_scale = nn.Parameter(zeros.clone())
        self.prior_log_scale = nn.Parameter(zeros.clone(), requires_grad=config.learned_prior)
        self.noise_log_scale = nn.Parameter(zeros[:1].clone(), requires_grad=config.learned_noise)

    @property
    def signal_to_noise(self) -> Tensor:
        """E of every direction with a latent, in units of the prior's scale: (min(N, K),)."""
        log_scale = self.prior_log_scale[: self.used] - self.noise_log_scale
        return (self.decoder * log_scale.exp()).square().detach()

    def encode(self, levels: Tensor) -> DiagonalGaussian:
        numbers = self.pixel_scale.input_from_levels(levels).flatten(1)[:, : self.used] / UNIT
        mean = pad(numbers * self.encoder, (0, self.config.latents - self.used))
        log_scale = self.posterior_log_scale.expand_as(mean)
        return DiagonalGaussian(mean[:, :, None, None], log_scale[:, :, None, None])

    def prior(self, batch: int) -> DiagonalGaussian:
        log_scale = self.prior_log_scale[None, :, None, None].expand(batch, -1, -1, -1)
        return DiagonalGaussian(torch.zeros_like(log_scale), log_scale)

    def likelihood(self, latent: Tensor) -> GaussianImages:
        written = latent.flatten(1)[:, : self.used] * self.decoder * UNIT
        image = pad(written, (0, self.dimensions - self.used)).view(-1, *self.image_shape)
        return GaussianImages(image, (self.noise_log_scale + torch.tensor(UNIT).log()).view(1, 1, 1, 1))


@dataclass(frozen=True)
class LinearProblem:
    """A model, four images (4, 1, S, S) as levels, and their noise."""

    model: LinearVAE
    levels: Tensor
    noise: PassNoise

    def terms(self, settings: ObjectiveSettings) -> ObjectiveTerms:
        """The exact expectation of the objective, with α = `alpha_T`."""
        return batch_terms(self.model, settings, self.levels, self.noise, settings.alpha_T)

    def train(self, settings: ObjectiveSettings, steps: int = 500, rate: float = 0.05) -> None:
        """Adam from where the model is, with a learning rate that falls to a thousandth."""
        optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], betas=(0.8, 0.95))
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = rate * 1e-3 ** (step / steps)
            optimizer.zero_grad()
            self.terms(settings).total.backward()
            optimizer.step()

    def information(self) -> float:
        """Eq. 5 in nats, summed over directions."""
        found = self.terms(ObjectiveSettings(lr_latents="prior")).latent_reconstruction
        return -found.item() * self.model.dimensions

    def bound(self) -> float:
        """−ELBO in nats, summed over directions, without the constant of each: ½ log 2π and the unit's scale."""
        found = self.terms(ObjectiveSettings(alpha_T=0)).negative_elbo.item()
        constant = 0.5 * torch.log(torch.tensor(2 * torch.pi * UNIT**2, dtype=torch.float64)).item()
        return (found - constant) * self.model.dimensions


def linear_problem(data_variances: Sequence[float], config: LinearConfig) -> LinearProblem:
    """Data of these variances (N,), in units of the pixel noise's, for a new model."""
    model = LinearVAE(config)
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    images = signs[:, 0, None] * torch.tensor(data_variances, dtype=torch.float64).sqrt() * UNIT
    noise = PassNoise(model, 4, CPU, prior=True)
    for draws in (noise.posterior, noise.prior):
        draws[0].copy_(signs[:, 1].view(4, 1, 1, 1))
    noise.image[0].copy_(torch.special.ndtr(signs[:, 2]).view(4, 1, 1, 1))  # the likelihood takes uniforms
    levels = model.pixel_scale.levels_from_target(images.view(4, *model.image_shape))
    return LinearProblem(model, levels, noise)
