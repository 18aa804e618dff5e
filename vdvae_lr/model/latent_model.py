"""`LatentModel`: what a VAE must offer to be trained, evaluated, drawn and saved by this program.

A model of your own derives from it and defines four things (docs/your_model.md): the shapes of its latents, how it
encodes images, one top-down pass, and its posteriors. In a pass, a `LatentSource` says where each group's latents come
from: the posterior q(z_l | z_<l, x), the prior p(z_l | z_<l), or the caller. A model without a hierarchy has one group.

Shapes: B images, C image channels, H = W image size, L latent groups, Z latent channels, R a group's resolution.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from vdvae_lr.errors import InputError
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.pixels import PixelScale


@dataclass(frozen=True)
class FromPosterior:
    """z_l ~ q(z_l | z_<l, x). `noise` (B, Z, R, R) is standard normal; None: the pass draws it."""

    noise: Tensor | None = None


@dataclass(frozen=True)
class FromPrior:
    """z_l ~ p(z_l | z_<l) with its scale multiplied by `temperature`. `noise` as for the posterior."""

    noise: Tensor | None = None
    temperature: float = 1.0


@dataclass(frozen=True)
class Given:
    """z_l is `latent` (B, Z, R, R)."""

    latent: Tensor


LatentSource = FromPosterior | FromPrior | Given
DecodedImage = Literal["mean", "sample"]


def latent_from(source: LatentSource, prior: DiagonalGaussian, posterior: DiagonalGaussian | None) -> Tensor:
    """The latents (B, Z, R, R) of one group. `posterior` is None in a pass without images.

    Raises:
        ValueError: the source is the posterior, and there is none.
    """
    match source:
        case Given(latent):
            return latent.to(prior.mean.dtype)
        case FromPrior(noise, temperature):
            return prior.sample(torch.randn_like(prior.mean) if noise is None else noise, temperature)
        case FromPosterior(noise):
            if posterior is None:
                raise ValueError("a latent from the posterior needs the image's features")
            return posterior.sample(torch.randn_like(posterior.mean) if noise is None else noise)


class Likelihood(Protocol):
    """p(x|z) of B images. Images are on the target scale [−1, 1]."""

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of images (B, C, H, W) in nats, in parts that add up: (B, …)."""

    def mean(self) -> Tensor:
        """The mean image D(z), differentiable: (B, C, H, W). It may leave [−1, 1]; pictures are cut to it."""

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        """A reparameterised draw, differentiable, in [−1, 1]: (B, C, H, W).

        Args:
            noise: uniform draws from (0, 1), one tensor (B, …) for each of the model's `image_noise_shapes`.
        """


@dataclass(frozen=True)
class Latents:
    """The latents of B images, and the distributions they come from. Each tuple has one entry a group, top-down."""

    latents: tuple[Tensor, ...]
    """z_l: (B, Z, R, R) each."""
    priors: tuple[DiagonalGaussian, ...]
    """p(z_l | z_<l)."""
    posteriors: tuple[DiagonalGaussian, ...]
    """q(z_l | z_<l, x); empty in a pass without images."""
    contexts: tuple[Tensor, ...]
    """What `LatentModel.posterior` needs of z_<l, (B, …) each; empty if the pass did not keep it, or the model needs
    nothing.
    """

    def detach(self) -> "Latents":
        """The same as constants."""
        return self._map(Tensor.detach)

    def rows(self, rows: Sequence[int]) -> "Latents":
        """The latents of some images, in the given order. An image may occur more than once."""
        return self._map(lambda tensor: tensor[list(rows)])

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Latents":
        return Latents(
            tuple(map(function, self.latents)),
            tuple(prior.map(function) for prior in self.priors),
            tuple(posterior.map(function) for posterior in self.posteriors),
            tuple(map(function, self.contexts)),
        )


@dataclass(frozen=True)
class LatentPass(Latents):
    """The result of one top-down pass: the latents, and p(x|z) given them."""

    likelihood: Likelihood

    def decoded(self, image: DecodedImage, noise: Sequence[Tensor] | None = None) -> Tensor:
        """The decoded image x̂, not rounded to pixel levels: (B, C, H, W) on the target scale.

        Args:
            image: mean: the mean image D(z); sample: one draw from p(x|z).
            noise: the noise of that draw, as `Likelihood.sample` takes it.

        Raises:
            ValueError: a sampled image without noise.
        """
        if image == "mean":
            return self.likelihood.mean()
        if noise is None:
            raise ValueError("a sampled image needs noise")
        return self.likelihood.sample(noise)


class LatentModel(nn.Module, ABC):
    """A VAE with L latent groups.

    Args:
        config: the dataclass that the model is built from. It has `image_size` and `image_channels` (1 or 3).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    # ---- What every model defines.

    @property
    @abstractmethod
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, R, R) of every group, top-down. A plain vector of Z latents is (Z, 1, 1)."""

    @abstractmethod
    def encode(self, levels: Tensor) -> Any:
        """The features of images, in whatever form the model's own `top_down` and `posterior` read them.

        Args:
            levels: (B, C, H, W) pixel levels from 0 to 255, floating-point. `pixel_scale` maps them to the input scale.
        """

    @abstractmethod
    def top_down(
        self, sources: Sequence[LatentSource], batch: int, features: Any = None, *, keep_contexts: bool = False
    ) -> LatentPass:
        """One pass from the coarsest group to p(x|z).

        Args:
            sources: where each group's latents come from, top-down. `latent_from` draws from a source.
            batch: B.
            features: the result of `encode`. If it is given, every group's posterior is computed, even if z is given.
            keep_contexts: keep what `posterior` needs of z_<l.

        Raises:
            ValueError: the number of sources is not L, or a source is the posterior and there are no features.
        """

    @abstractmethod
    def posterior(self, group: int, latents: Latents, features: Any) -> DiagonalGaussian:
        """q(z_l | z_<l, x) of group l for the z_<l of `latents` and the images of `features`.

        Latent Reconstruction and the evaluation call this to encode a decoded image without a second top-down pass.
        Either `latents` or `features` may be of a single image; it then goes with each image of the other.

        Raises:
            ValueError: the model needs contexts, and the pass kept none.
        """

    # ---- What a model may override.

    standard_prior: bool = False
    """Whether p(z) is N(0, I), and no weight changes it."""
    sample_shows: DecodedImage = "sample"
    """What a picture of a sample from the prior shows: an image drawn from p(x|z), or the mean image, for likelihoods
    whose noise would cover it.
    """
    samples_in_bf16: bool = False
    """Whether samples may be computed in bf16 unasked, because a test shows that their pictures hardly change."""

    @property
    def pixel_scale(self) -> PixelScale:
        """The maps between levels, input and target. The default is 8-bit images and inputs in [−1, 1]."""
        return PixelScale(8, -127.5, 1 / 127.5)

    @property
    def image_noise_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes, without B, of the uniform draws for one sampled image. The default is one draw a number."""
        return (self.image_shape,)

    @property
    def pixel_sigma(self) -> float | None:
        """σ on the target scale, if p(x|z) is N(D(z), σ²) with one σ for all; None if it is not."""
        return None

    @property
    def reader_config(self) -> Any:
        """Settings of a new model whose posteriors read this one's images; the default is the model's own."""
        return self.config

    def recompute_activations(self, lowest_resolution: int | None) -> None:
        """Store no activations from this resolution on; the backward pass computes them again. None: store all.

        Raises:
            InputError: the model cannot recompute any.
        """
        if lowest_resolution is not None:
            raise InputError(f"{type(self).__name__} cannot recompute activations; leave --checkpoint_activations out.")

    def opening_weights(self) -> Sequence[Tensor]:
        """The weights that read a latent into the image and the image into the posterior's mean, for --open_at_start.

        Views of the model's own weights. The default is none: then that setting is refused.
        """
        return ()

    def encoder_weights(self) -> Sequence[str]:
        """Names of the parameters on which the posteriors alone depend, for --encoder_steps.

        The default is none: then that setting is refused.
        """
        return ()

    def compile_parts(self) -> Sequence[nn.Module]:
        """The modules that --compile compiles one by one. The default is the model's own children."""
        return list(self.children())

    def facts(self) -> list[tuple[str, str]]:
        """Names and values for the architecture table of a model card. The default is all settings."""
        return [(f"`{name}`", f"`{value}`") for name, value in vars(self.config).items()]

    # ---- What follows from these.

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.config.image_channels, self.config.image_size, self.config.image_size

    @property
    def dimensions(self) -> int:
        """The number of numbers in one image: what 'per dim' divides by."""
        return math.prod(self.image_shape)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """R of every group, top-down: (L,)."""
        return tuple(shape[-1] for shape in self.latent_shapes)

    @property
    def weight(self) -> Tensor:
        """Any one of the weights. It tells the model's number format and device."""
        return next(self.parameters())

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return self.weight.device

    def infer(
        self, levels: Tensor, noise: Sequence[Tensor] | None = None, *, keep_contexts: bool = False
    ) -> LatentPass:
        """A pass with z ~ q(z|x) for images as levels (B, C, H, W). `noise` has one standard normal tensor a group."""
        sources = [FromPosterior(draw) for draw in self._draws(noise)]
        return self.top_down(sources, levels.shape[0], self.encode(levels), keep_contexts=keep_contexts)

    def generate(
        self,
        batch: int,
        noise: Sequence[Tensor] | None = None,
        temperature: float | Sequence[float] = 1.0,
        *,
        keep_contexts: bool = False,
    ) -> LatentPass:
        """A pass with z ~ p(z), with one temperature for all groups or one for each."""
        count = len(self.latent_shapes)
        temperatures = [temperature] * count if isinstance(temperature, int | float) else temperature
        sources = [FromPrior(draw, t) for draw, t in zip(self._draws(noise), temperatures, strict=True)]
        return self.top_down(sources, batch, keep_contexts=keep_contexts)

    def decode(self, latents: Sequence[Tensor], *, keep_contexts: bool = False) -> LatentPass:
        """A pass with all latents given, (B, Z, R, R) for each group."""
        return self.top_down([Given(latent) for latent in latents], len(latents[0]), keep_contexts=keep_contexts)

    def reencode(self, latents: Latents, image: Tensor) -> tuple[DiagonalGaussian, ...]:
        """q(z_l | z_<l, x̂) of every group, for images x̂ (B, C, H, W) on the target scale and the z_<l of `latents`.

        Equal to a second top-down pass with all latents given, at the cost of the encoder and the posteriors alone.
        """
        return self.posteriors(latents, self.encode_target(image))

    def encode_target(self, image: Tensor) -> Any:
        """`encode` for images (B, C, H, W) on the target scale, such as decoded ones."""
        return self.encode(self.pixel_scale.levels_from_target(image))

    def posteriors(self, latents: Latents, features: Any) -> tuple[DiagonalGaussian, ...]:
        """`posterior` of every group."""
        return tuple(self.posterior(group, latents, features) for group in range(len(self.latent_shapes)))

    def _draws(self, noise: Sequence[Tensor] | None) -> Sequence[Tensor | None]:
        return noise if noise is not None else [None] * len(self.latent_shapes)
