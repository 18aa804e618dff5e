"""The VDVAE: its settings, and the calls everything else is made of.

Shapes: B batch, C image channels, H = W image_size, Z latent channels, R a group's resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.errors import InputError
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture, parameters_per_component
from vdvae_lr.model.pixels import PixelScale
from vdvae_lr.model.precision import without_autocast
from vdvae_lr.model.vdvae.decoder import Decoder, FromPosterior, FromPrior, LatentSource, TopDownPass
from vdvae_lr.model.vdvae.encoder import Encoder, Features
from vdvae_lr.model.vdvae.layers import convolution
from vdvae_lr.model.vdvae.layout import parse_decoder, parse_encoder, parse_widths
from vdvae_lr.setting_checks import Between, check_settings

_LARGEST = 65_536  # of any size; settings may come from strangers, with weights
Size = Annotated[int, Between(1, _LARGEST)]
Factor = Annotated[float, Between(0, _LARGEST, above=True)]


@dataclass(frozen=True)
class VAEConfig:
    """Everything that defines the model; it travels with the weights. Names as published where the published code has
    them.
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
    """Other channels at some resolutions, as RESOLUTION:CHANNELS pairs (64:512,32:512); only wider downwards."""
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
    """normalised: bins of `bits` that sum to one; published_5bit: the published FFHQ-256 bins, which do not."""
    input_shift: Annotated[float, Between(-_LARGEST, _LARGEST)] = -127.5
    """Added to 8-bit levels before the encoder."""
    input_scale: Factor = 1 / 64
    """Multiplies the shifted levels."""

    def __post_init__(self) -> None:
        """Refuse what no model can be made of; raises InputError."""
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

    @property
    def dimensions(self) -> int:
        """Numbers in one image: what 'per dim' divides by."""
        return self.image_size**2 * self.image_channels

    @property
    def pixel_scale(self) -> PixelScale:
        """The maps between levels, input and target."""
        return PixelScale(self.bits, self.input_shift, self.input_scale)


class VDVAE(nn.Module):
    """A very deep VAE (Child 2020) with the published architecture and initialisation."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.pixel_scale = config.pixel_scale
        self._bins = Bins.published_5bit() if config.likelihood == "published_5bit" else Bins.of_bits(config.bits)
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

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recompute every block's activations in the backward pass instead of storing them."""
        self.encoder.checkpoint_activations = enabled
        self.decoder.checkpoint_activations = enabled

    def encode(self, levels: Tensor) -> Features:
        """Images as 0…255 levels (B, C, H, W) → features by resolution."""
        return self.encode_input(self.pixel_scale.input_from_levels(levels))

    def encode_input(self, image_input: Tensor) -> Features:
        """Images on the input scale (B, C, H, W) → features by resolution."""
        features: Features = self.encoder(image_input)
        return features

    def top_down(
        self,
        sources: Sequence[LatentSource],
        batch: int,
        features: Features | None = None,
        *,
        keep_states: bool = False,
    ) -> TopDownPass:
        """The one top-down pass; see `Decoder.forward`."""
        result: TopDownPass = self.decoder(sources, batch, features, keep_states=keep_states)
        return result

    def infer(self, levels: Tensor, noise: Sequence[Tensor] | None = None, *, keep_states: bool = False) -> TopDownPass:
        """z ~ q(z|x) for images as levels (B, C, H, W), with the posterior and prior of every group."""
        sources = [FromPosterior(draw) for draw in self._draws(noise)]
        return self.top_down(sources, levels.shape[0], self.encode(levels), keep_states=keep_states)

    def generate(
        self,
        batch: int,
        noise: Sequence[Tensor] | None = None,
        temperature: float | Sequence[float] = 1.0,
        *,
        keep_states: bool = False,
    ) -> TopDownPass:
        """z ~ p(z), with one temperature for all groups or one for each."""
        count = len(self.latent_shapes)
        temperatures = [temperature] * count if isinstance(temperature, int | float) else temperature
        sources = [FromPrior(draw, t) for draw, t in zip(self._draws(noise), temperatures, strict=True)]
        return self.top_down(sources, batch, keep_states=keep_states)

    def _draws(self, noise: Sequence[Tensor] | None) -> Sequence[Tensor | None]:
        return noise if noise is not None else [None] * len(self.latent_shapes)

    def likelihood(self, output: Tensor) -> LogisticMixture:
        """p(x|z) from a pass's output (B, width, H, W); in float32 proper, since bins are narrower than bf16 resolves.

        A matrix product rather than a convolution: torch lets the latter round to TF32 on CUDA.
        """
        layer = self.mixture_output
        with without_autocast(output.device):
            numbers = F.linear(output.permute(0, 2, 3, 1), layer.weight[:, :, 0, 0], layer.bias)
            return LogisticMixture(numbers.permute(0, 3, 1, 2), self.config.image_channels, self._bins)

    def reencode(self, passed: TopDownPass, image: Tensor) -> tuple[DiagonalGaussian, ...]:
        """q(z_l | z_<l, x̂) of every group of a pass with kept states, for images x̂ on the target scale (B, C, H,
        W).
        """
        features = self.encode_input(self.pixel_scale.input_from_target(image))
        return self.decoder.reencode(passed.groups, features)
