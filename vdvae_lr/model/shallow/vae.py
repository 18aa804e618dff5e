"""The VAEs of the paper's shallow study as one `LatentModel`: its settings, encoder and decoders.

The methods are settings: β and LR belong to the objective, Lagging VAE to the training; LIDVAE and IL-LIDVAE are
`decoder="brenier"` with their L, SA-VAE is `refinement_steps`.

Shapes: B images, C channels, H = W image size, Z latents.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.errors import InputError
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import Likelihood
from vdvae_lr.model.one_group import OneGroupModel
from vdvae_lr.model.pixels import PixelScale
from vdvae_lr.model.precision import full_precision
from vdvae_lr.model.shallow.convex import BrenierDecoder
from vdvae_lr.model.shallow.likelihoods import LEAST_VARIANCE, BernoulliPixels, GaussianPixels, OptimalGaussianPixels
from vdvae_lr.model.shallow.refinement import refined, refinement_noise
from vdvae_lr.setting_checks import Between, check_settings

_LARGEST = 65_536  # limit of any size: settings may come from strangers, with weights
Size = Annotated[int, Between(1, _LARGEST)]


@dataclass(frozen=True)
class ShallowConfig:
    """Everything that defines the model; it is saved with the weights. The defaults are the paper's VAE at 28×28."""

    image_size: Size = 28
    """Height and width of the images."""
    image_channels: int = 1
    """1 (grey) or 3 (colour)."""
    latents: Size = 32
    """Latents of an image."""
    encoder_channels: str = "32,64,128"
    """Channels of the encoder's stages; each halves the resolution."""
    decoder: Literal["plain", "brenier"] = "plain"
    """plain: four linear layers with batch normalisation; brenier: gradients of convex networks (LIDVAE)."""
    inverse_lipschitz: Annotated[float, Between(0)] = 0.0
    """L of IL-LIDVAE: each of a brenier decoder's two maps moves points at least L times as far apart; 0: LIDVAE."""
    convex_units: Size = 512
    """Hidden units of a brenier decoder's map of the latents."""
    convex_image_units: Size = 1024
    """Hidden units of its map of the image."""
    likelihood: Literal["gaussian", "optimal", "bernoulli"] = "gaussian"
    """gaussian: one fixed variance; optimal: the mean squared error as variance; bernoulli: levels from 128 up are
    white, lower ones black.
    """
    pixel_variance: Annotated[float, Between(LEAST_VARIANCE, 1e6)] = 0.5
    """Variance of the gaussian, for pixels in [0, 1]: 0.5 makes the distortion the squared error itself and a constant,
    1 half of it and a constant."""
    refinement_steps: Annotated[int, Between(0, 1000)] = 0
    """Steps of SA-VAE that refine the encoder's posterior for each image; 0: none."""
    refinement_rate: Annotated[float, Between(0, 1e3, above=True)] = 0.02
    """Length of such a step, in nats of one image: the published 1, for a mean over 50 images."""
    refinement_momentum: Annotated[float, Between(0, 1, below=True)] = 0.5
    """Share of the last of these steps that the next one repeats."""

    def __post_init__(self) -> None:
        """Refuse settings that no model can be built from; raises InputError."""
        check_settings(self)
        if self.image_channels not in (1, 3):
            raise InputError(f"image_channels is {self.image_channels}; it must be 1 (grey) or 3 (colour).")
        numbers = self.image_channels * self.image_size**2
        if self.decoder == "brenier" and self.latents > numbers:
            raise InputError(
                f"latents is {self.latents}, but an injective decoder has no room for more than the image's {numbers} "
                "numbers; lower --latents."
            )
        units = min(self.convex_units, self.convex_image_units)
        if self.decoder == "brenier" and units < self.latents:
            raise InputError(
                f"convex_units and convex_image_units must be {self.latents} or more, as many as latents, or the "
                f"decoder is not injective; one is {units}."
            )
        if self.decoder != "brenier" and self.inverse_lipschitz:
            raise InputError("inverse_lipschitz needs an injective decoder; add --decoder brenier, or leave it out.")
        if self.refinement_steps and self.likelihood == "optimal":
            raise InputError(
                "refinement_steps need the likelihood of one image, but the variance of likelihood optimal depends on "
                "all images of a batch; choose --likelihood gaussian or bernoulli."
            )
        self.stages()  # raises InputError for channels that cannot be read

    def stages(self) -> list[int]:
        """The channels of every stage of the encoder (raises InputError if they cannot be read)."""
        words = self.encoder_channels.split(",")
        channels = [int(word) if word.strip().isascii() and word.strip().isdecimal() else 0 for word in words]
        if not all(1 <= number <= _LARGEST for number in channels) or len(channels) > 16:
            raise InputError(
                f"encoder_channels is '{self.encoder_channels[:60]}'; it must be channels from 1 to {_LARGEST:,} with "
                "commas, such as 32,64,128."
            )
        return channels


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation, beside a 1×1 one where the shape changes."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out_channels, 3, stride, 1)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.beside: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            self.beside = nn.Sequential(nn.Conv2d(channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) → (B, out_channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        inside = self.second_norm(self.second(F.leaky_relu(self.first_norm(self.first(x)))))
        # Not a convolution with a stride: its backward pass writes where it must not on AVX2 (oneDNN issue 6035).
        return F.leaky_relu(inside + self.beside(x[:, :, :: self.stride, :: self.stride]))


def _encoder(config: ShallowConfig) -> nn.Sequential:
    """Images (B, C, H, W) in [0, 1] → mean and log-variance (B, 2·Z)."""
    layers: list[nn.Module] = []
    channels, side = config.image_channels, config.image_size
    for stage in config.stages():
        layers += [ResidualBlock(channels, stage, 2), ResidualBlock(stage, stage, 1)]
        channels, side = stage, -(-side // 2)
    both = 2 * config.latents
    head = [nn.Flatten(), nn.Linear(channels * side**2, both), nn.BatchNorm1d(both), nn.LeakyReLU()]
    return nn.Sequential(*layers, *head, nn.Linear(both, both))


def _plain_decoder(config: ShallowConfig) -> nn.Sequential:
    """(B, Z) → the numbers of an image, (B, C·H·W), through half as many numbers twice."""
    numbers = config.image_channels * config.image_size**2
    half = max(1, numbers // 2)
    layers: list[nn.Module] = []
    for narrow, wide in ((config.latents, half), (half, half), (half, numbers)):
        layers += [nn.Linear(narrow, wide), nn.BatchNorm1d(wide), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(numbers, numbers))


class ShallowModel(OneGroupModel):
    """One group of Z latents with prior N(0, I)."""

    config: ShallowConfig
    standard_prior = True
    sample_shows = "mean"

    def __init__(self, config: ShallowConfig) -> None:
        super().__init__(config)
        self.encoder = _encoder(config)
        self.decoder: nn.Module
        if config.decoder == "plain":
            self.decoder = _plain_decoder(config)
        else:
            units = (config.convex_units, config.convex_image_units)
            self.decoder = BrenierDecoder(config.latents, self.dimensions, *units, config.inverse_lipschitz)
        kept = config.likelihood == "optimal"  # a fixed variance is a setting, and no part of the weights
        self.register_buffer("pixel_variance", torch.tensor(config.pixel_variance), persistent=kept)
        noise = refinement_noise(config.refinement_steps, config.latents)
        self.register_buffer("_refinement_noise", noise, persistent=False)

    @property
    def pixel_scale(self) -> PixelScale:
        """The networks compute with pixels in [0, 1]."""
        return PixelScale(8, 0.0, 1 / 255)

    @property
    def pixel_sigma(self) -> float | None:
        """Twice the standard deviation of pixels in [0, 1]; None for a Bernoulli."""
        variance = cast(Tensor, self.pixel_variance)
        return None if self.config.likelihood == "bernoulli" else 2 * math.sqrt(variance.item())

    @property
    def reader_config(self) -> ShallowConfig:
        """Without refinement, which would ask the reader's own, untrained decoder."""
        return replace(self.config, refinement_steps=0)

    def encoder_weights(self) -> Sequence[str]:
        """All of the encoder."""
        return [f"encoder.{name}" for name, _ in self.encoder.named_parameters()]

    def encode(self, levels: Tensor) -> DiagonalGaussian:
        """q(z|x) for levels (B, C, H, W); refined, if the settings say so."""
        numbers = full_precision(self.encoder(self.pixel_scale.input_from_levels(levels)))[:, :, None, None]
        mean, log_variance = numbers.chunk(2, dim=1)
        posterior = DiagonalGaussian(mean, 0.5 * log_variance)
        if not self.config.refinement_steps:
            return posterior

        def negative_elbo(posterior: DiagonalGaussian, noise: Tensor, levels: Tensor) -> Tensor:
            log_prob = self.likelihood(posterior.sample(noise)).log_prob(self.pixel_scale.target_from_levels(levels))
            return posterior.kl_to(_standard(posterior.mean)).flatten(1).sum(1) - log_prob.flatten(1).sum(1)

        rate, momentum = self.config.refinement_rate, self.config.refinement_momentum
        noise = cast(Tensor, self._refinement_noise)
        with _still_statistics(self.decoder):
            return refined(posterior, negative_elbo, noise, levels, rate=rate, momentum=momentum)

    def prior(self, batch: int) -> DiagonalGaussian:
        """N(0, I)."""
        return _standard(self.weight.new_zeros(batch, *self.latent_shapes[0]))

    def likelihood(self, latent: Tensor) -> Likelihood:
        """p(x|z), as the settings say."""
        image = full_precision(self.decoder(latent.flatten(1))).unflatten(1, self.image_shape)
        variance = cast(Tensor, self.pixel_variance)
        if self.config.likelihood == "bernoulli":
            return BernoulliPixels(image)
        if self.config.likelihood == "optimal":
            return OptimalGaussianPixels(image, variance, training=self.training)
        return GaussianPixels(image, variance)


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation leaves its running statistics as they are: they are of the one final pass."""
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, kept, strict=True):
            norm.momentum = momentum


def _standard(like: Tensor) -> DiagonalGaussian:
    """N(0, I) of this shape."""
    zeros = torch.zeros_like(like)
    return DiagonalGaussian(zeros, zeros)
