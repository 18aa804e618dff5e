"""`LatentModel`: the form of a VAE that losses, evaluation, pictures, training and weights work with.

A model of your own defines four things (docs/your_model.md): the shapes of its latents, how it encodes images, one
top-down pass, and its posteriors. A group's latents come from a `LatentSource` in that pass: from the posterior
q(z_l | z_<l, x), from the prior p(z_l | z_<l), or given. A model without a hierarchy has one group.

Shapes: B images, C image channels, H = W image size, L latent groups, Z latent channels, R a group's resolution.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from vdvae_lr.errors import InputError
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.pixels import PixelScale


@dataclass(frozen=True)
class FromPosterior:
    """z_l ~ q(z_l | z_<l, x); needs the image's features. `noise` (B, Z, R, R) is standard normal, drawn when None."""

    noise: Tensor | None = None


@dataclass(frozen=True)
class FromPrior:
    """z_l ~ p(z_l | z_<l), its scale multiplied by `temperature`. `noise` as for the posterior."""

    noise: Tensor | None = None
    temperature: float = 1.0


@dataclass(frozen=True)
class Given:
    """z_l is `latent` (B, Z, R, R)."""

    latent: Tensor


LatentSource = FromPosterior | FromPrior | Given
DecodedImage = Literal["mean", "sample"]


def latent_from(source: LatentSource, prior: DiagonalGaussian, posterior: DiagonalGaussian | None) -> Tensor:
    """One group's latents (B, Z, R, R).

    Raises:
        ValueError: they are to come from the posterior, and there is none because the pass has no image.
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
    """p(x|z) of B images; images are on the target scale [−1, 1]."""

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of images (B, C, H, W) in nats: (B, …)."""

    def mean(self) -> Tensor:
        """D(z), differentiable, in [−1, 1]: (B, C, H, W)."""

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        """A reparameterised draw, differentiable, in [−1, 1]: (B, C, H, W).

        Args:
            noise: uniform draws from (0, 1): (B, …) for each of the model's `image_noise_shapes`.
        """


@dataclass(frozen=True)
class Latents:
    """The latents of B images with what they were drawn from; tuples are top-down, one entry a group."""

    latents: tuple[Tensor, ...]
    """(B, Z, R, R) each."""
    priors: tuple[DiagonalGaussian, ...]
    """p(z_l | z_<l)."""
    posteriors: tuple[DiagonalGaussian, ...]
    """q(z_l | z_<l, x); empty in a pass without images."""
    contexts: tuple[Tensor, ...]
    """(B, …) each: what re-encoding another image needs of z_<l; empty unless the pass was told to keep it."""

    def detach(self) -> "Latents":
        """The same as constants."""
        return Latents(
            tuple(latent.detach() for latent in self.latents),
            tuple(prior.detach() for prior in self.priors),
            tuple(posterior.detach() for posterior in self.posteriors),
            tuple(context.detach() for context in self.contexts),
        )

    def rows(self, rows: Sequence[int]) -> "Latents":
        """Those of some images, in the given order, any of them more than once."""
        chosen = list(rows)
        return Latents(
            tuple(latent[chosen] for latent in self.latents),
            tuple(DiagonalGaussian(prior.mean[chosen], prior.log_scale[chosen]) for prior in self.priors),
            tuple(DiagonalGaussian(each.mean[chosen], each.log_scale[chosen]) for each in self.posteriors),
            tuple(context[chosen] for context in self.contexts),
        )


@dataclass(frozen=True)
class LatentPass(Latents):
    """One top-down pass: its latents, and p(x|z) given them."""

    likelihood: Likelihood

    def decoded(self, image: DecodedImage, noise: Sequence[Tensor] | None = None) -> Tensor:
        """x̂, not rounded to the data's levels: (B, C, H, W) on the target scale.

        Args:
            image: mean: D(z), the likelihood's mean; sample: one draw from p(x|z).
            noise: of the draw, as `Likelihood.sample` takes it.

        Raises:
            ValueError: a sampled image without noise.
        """
        if image == "mean":
            return self.likelihood.mean()
        if noise is None:
            raise ValueError("a sampled image needs noise")
        return self.likelihood.sample(noise)


class LatentModel(nn.Module):
    """A VAE with L latent groups.

    Args:
        config: the dataclass that the model is built from; it has `image_size` and `image_channels` (1 or 3).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    # ---- what a model defines

    @property
    @abstractmethod
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, R, R) of every group, top-down; a plain vector of Z latents is (Z, 1, 1)."""

    @abstractmethod
    def encode(self, levels: Tensor) -> Any:
        """What the posteriors read of images given as levels 0 … 255, (B, C, H, W) floating-point."""

    @abstractmethod
    def top_down(
        self, sources: Sequence[LatentSource], batch: int, features: Any = None, *, keep_contexts: bool = False
    ) -> LatentPass:
        """One pass from the coarsest group to p(x|z).

        Args:
            sources: one for each group, top-down; `latent_from` draws from it.
            batch: B.
            features: of `encode`; with them every group's posterior is computed, also where z is given.
            keep_contexts: keep what `posterior` needs of z_<l.

        Raises:
            ValueError: another number of sources than groups, or a posterior source without features.
        """

    @abstractmethod
    def posterior(self, group: int, latents: Latents, features: Any) -> DiagonalGaussian:
        """q(z_l | z_<l, x) of one group l, z_<l being those of `latents` and x the image of `features`.

        One of the two may be of a single image: it is then combined with each image of the other.

        Raises:
            ValueError: latents of a pass that kept no contexts, where the model needs them.
        """

    # ---- what a model may define

    @property
    def pixel_scale(self) -> PixelScale:
        """The maps between levels, input and target; plain 8-bit images unless a model says otherwise."""
        return PixelScale(8, -127.5, 1 / 127.5)

    @property
    def image_noise_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes, without B, of the uniform draws that one sampled image takes; (C, H, W) unless it takes others."""
        return (self.image_shape,)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass instead of storing them.

        Raises:
            InputError: it is asked for, and the model cannot do it.
        """
        if enabled:
            raise InputError(f"{type(self).__name__} cannot recompute activations; leave --checkpoint_activations out.")

    def compile_parts(self) -> Sequence[nn.Module]:
        """The modules that --compile compiles one by one; the model's own children unless it names others."""
        return list(self.children())

    def facts(self) -> list[tuple[str, str]]:
        """What a model card says of the architecture, as pairs of name and value; the settings by default."""
        return [(f"`{name}`", f"`{value}`") for name, value in vars(self.config).items()]

    # ---- what follows

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.config.image_channels, self.config.image_size, self.config.image_size

    @property
    def dimensions(self) -> int:
        """Numbers in one image: what 'per dim' divides by."""
        return math.prod(self.image_shape)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """R of every group, top-down: (L,)."""
        return tuple(shape[-1] for shape in self.latent_shapes)

    @property
    def weight(self) -> Tensor:
        """Some weight, for its number format and device."""
        return next(self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weight.device

    def infer(
        self, levels: Tensor, noise: Sequence[Tensor] | None = None, *, keep_contexts: bool = False
    ) -> LatentPass:
        """z ~ q(z|x) for images as levels (B, C, H, W); `noise` is one standard normal draw a group."""
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
        """z ~ p(z), with one temperature for all groups or one for each."""
        count = len(self.latent_shapes)
        temperatures = [temperature] * count if isinstance(temperature, int | float) else temperature
        sources = [FromPrior(draw, t) for draw, t in zip(self._draws(noise), temperatures, strict=True)]
        return self.top_down(sources, batch, keep_contexts=keep_contexts)

    def decode(self, latents: Sequence[Tensor], *, keep_contexts: bool = False) -> LatentPass:
        """The pass with all latents given, (B, Z, R, R) each."""
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
