"""The very deep VAE: its settings, and the network as a `LatentModel`.

Shapes: B batch, C image channels, H = W image_size, Z latent channels, R a group's resolution, K mixture components.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.errors import InputError
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass, Latents, LatentSource
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture, WithSlopes, parameters_per_component
from vdvae_lr.model.pixels import PixelScale
from vdvae_lr.model.precision import full_precision, without_autocast
from vdvae_lr.model.vdvae.decoder import Decoder, TopDownBlock
from vdvae_lr.model.vdvae.encoder import Encoder, Features
from vdvae_lr.model.vdvae.layers import convolution
from vdvae_lr.model.vdvae.layout import parse_decoder, parse_encoder, parse_widths
from vdvae_lr.setting_checks import Between, check_settings

_LARGEST = 65_536  # limit of any size: settings may come from strangers, with weights
Size = Annotated[int, Between(1, _LARGEST)]
Factor = Annotated[float, Between(0, _LARGEST, above=True)]


@dataclass(frozen=True)
class VAEConfig:
    """Everything that defines the model; it is saved with the weights.

    Names are those of the published code if that has them.
    """

    image_size: Size = 32
    """Height and width of the images."""
    image_channels: int = 3
    """1 (grey) or 3 (colour)."""
    enc_blocks: str = "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3"
    """Bottom-up blocks: 32x11 = 11 blocks at resolution 32, 32d2 = a block, then average pooling by 2."""
    dec_blocks: str = "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21"
    """Top-down blocks, one latent group each: 32m16 = a block at 32 that first adds the upsampled state of 16."""
    width: Size = 384
    """Channels of the features and of the state."""
    custom_width_str: str = ""
    """Other channels at some resolutions, as RESOLUTION:CHANNELS pairs (64:512,32:512); a lower
    resolution must not have fewer."""
    bottleneck_multiple: Factor = 0.25
    """Channels inside a block, as a share of its width."""
    zdim: Size = 16
    """Latent channels of every group."""
    no_bias_above: int = 64
    """Highest resolution whose starting state is learned; above it the state starts at zero."""
    num_mixtures: Size = 10
    """Components of the logistic mixture."""
    bits: Annotated[int, Between(1, 8)] = 8
    """Depth of the likelihood's targets in bits (the published FFHQ-256 model has 5)."""
    likelihood: Literal["normalised", "published_5bit"] = "normalised"
    """normalised: bins of `bits` whose masses sum to one; published_5bit: the published FFHQ-256 bins, which do not."""
    input_shift: Annotated[float, Between(-_LARGEST, _LARGEST)] = -127.5
    """Added to 8-bit levels before the encoder."""
    input_scale: Factor = 1 / 64
    """Multiplies the shifted levels."""

    def __post_init__(self) -> None:
        """Refuse settings that no model can be built from; raises InputError."""
        check_settings(self)
        if self.image_channels not in (1, 3):
            raise InputError(f"image_channels is {self.image_channels}; it must be 1 (grey) or 3 (colour).")
        if self.likelihood == "published_5bit" and self.bits != 5:
            raise InputError(
                f"likelihood published_5bit goes with bits 5, not {self.bits}; use --likelihood normalised."
            )
        encoder = parse_encoder(self.enc_blocks, self.image_size)
        parse_decoder(self.dec_blocks, self.image_size, encoder)
        narrowest = min(parse_widths(self.custom_width_str, self.width, encoder).values())
        if int(narrowest * self.bottleneck_multiple) < 1:
            raise InputError(
                f"bottleneck_multiple {self.bottleneck_multiple} leaves no channel of width {narrowest}; "
                "raise one of them."
            )


class VeryDeepVAE(LatentModel):
    """A very deep VAE (Child 2020) with the published architecture and initialisation."""

    config: VAEConfig
    samples_in_bf16 = True  # tests/pictures/test_sampling.py holds this; docs/latents.md has the numbers
    mixture_kernel: WithSlopes | None = None
    """What computes the likelihood where its gradient is wanted; None: the plain formula."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config)
        self.bins = Bins.published_5bit() if config.likelihood == "published_5bit" else Bins.of_bits(config.bits)
        encoder = parse_encoder(config.enc_blocks, config.image_size)
        decoder = parse_decoder(config.dec_blocks, config.image_size, encoder)
        widths = parse_widths(config.custom_width_str, config.width, encoder)
        self.encoder = Encoder(encoder, widths, config.image_channels, config.bottleneck_multiple)
        self.decoder = Decoder(decoder, widths, config.zdim, config.bottleneck_multiple, config.no_bias_above)
        numbers = config.num_mixtures * parameters_per_component(config.image_channels)
        self.mixture_output = convolution(config.width, numbers)

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, R, R) of every group, top-down."""
        return tuple((self.config.zdim, stage.resolution, stage.resolution) for stage in self.decoder.stages)

    @property
    def pixel_scale(self) -> PixelScale:
        """The maps between levels, input and target."""
        return PixelScale(self.config.bits, self.config.input_shift, self.config.input_scale)

    @property
    def image_noise_shapes(self) -> tuple[tuple[int, ...], ...]:
        """(K, H, W) to choose the component, (C, H, W) for the position in its logistic (`LogisticMixture.sample`)."""
        return (self.config.num_mixtures, *self.image_shape[1:]), self.image_shape

    def encode(self, levels: Tensor) -> Features:
        """Levels (B, C, H, W) → features by resolution."""
        features: Features = self.encoder(self.pixel_scale.input_from_levels(levels))
        return features

    def top_down(
        self,
        sources: Sequence[LatentSource],
        batch: int,
        features: Features | None = None,
        *,
        keep_contexts: bool = False,
    ) -> LatentPass:
        """See `LatentModel.top_down`."""
        latents, state = self.decoder(sources, batch, features, keep_states=keep_contexts)
        return LatentPass(**vars(latents), likelihood=self.likelihood(state))

    def posterior(self, group: int, latents: Latents, features: Features) -> DiagonalGaussian:
        """See `LatentModel.posterior`."""
        return self.decoder.posterior(group, latents, features)

    def posteriors(self, latents: Latents, features: Features) -> tuple[DiagonalGaussian, ...]:
        """See `LatentModel.posteriors`."""
        return self.decoder.posteriors(latents, features)

    def recompute_activations(self, lowest_resolution: int | None) -> None:
        """See `LatentModel.recompute_activations`."""
        self.encoder.recomputed_from = self.decoder.recomputed_from = lowest_resolution

    def opening_weights(self) -> list[Tensor]:
        """See `LatentModel.opening_weights`."""
        return [weight for block in self.decoder.blocks for weight in cast(TopDownBlock, block).opening_weights()]

    def compile_parts(self) -> list[nn.Module]:
        """The blocks. They have few shapes; compiling the unrolled model takes minutes."""
        return [*self.encoder.blocks, *self.decoder.blocks]

    def facts(self) -> list[tuple[str, str]]:
        """The architecture table of a model card."""
        config = self.config
        return [
            ("likelihood", f"`{config.likelihood}`, {config.num_mixtures} mixture components"),
            ("input map", f"(level {config.input_shift:+g}) × {config.input_scale:g}, of 8-bit levels"),
            ("encoder", f"`{config.enc_blocks}`"),
            ("decoder", f"`{config.dec_blocks}`"),
        ]

    def likelihood(self, state: Tensor) -> LogisticMixture:
        """p(x|z) from the final state (B, width, H, W), in full float32, because bins are narrower than bf16 resolves.

        It is a matrix product, because torch lets a convolution round to TF32 on CUDA. The state's gain and bias are
        applied to the few weights, which is the same as applying them to the many numbers of the state.
        """
        layer, decoder = self.mixture_output, self.decoder
        with without_autocast(state.device):
            weight = layer.weight[:, :, 0, 0]
            bias = torch.addmv(cast(Tensor, layer.bias), weight, decoder.bias.flatten())
            numbers = F.linear(full_precision(state).permute(0, 2, 3, 1), weight * decoder.gain.flatten(), bias)
            parameters = numbers.permute(0, 3, 1, 2)
            return LogisticMixture(parameters, self.config.image_channels, self.bins, self.mixture_kernel)
