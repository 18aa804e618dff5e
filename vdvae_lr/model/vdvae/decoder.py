"""The top-down pass: one pass, whatever its latents come from.

Every latent group l takes its z_l from a `LatentSource`: the posterior q(z_l | z_<l, x), the prior p(z_l | z_<l), or a
given tensor; any mixture by group. The state h_l that enters block l depends on z_<l only, so what a pass keeps of it
(`reduced_state`) is enough to re-encode another image for the same latents without a second pass.

Shapes: B batch, C width at the group's resolution R, M bottleneck width, Z latent channels.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.precision import compute_dtype, full_precision
from vdvae_lr.model.vdvae.encoder import Features
from vdvae_lr.model.vdvae.layers import Bottleneck, TwoInputBottleneck, convolution, scale_weights
from vdvae_lr.model.vdvae.layout import DecoderStage


@dataclass(frozen=True)
class FromPosterior:
    """z_l ~ q(z_l | z_<l, x); needs the image's features. `noise` (B, Z, R, R) is standard normal, drawn when None."""

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


@dataclass(frozen=True)
class LatentGroup:
    """What one pass knows of one latent group."""

    latent: Tensor
    prior: DiagonalGaussian
    posterior: DiagonalGaussian | None  # None in a pass without an image
    reduced_state: Tensor | None  # (B, M, R, R), None when the pass was told not to keep it


@dataclass(frozen=True)
class TopDownPass:
    """All groups in top-down order, and the scaled final state (B, C, H, W) that the output convolution reads."""

    groups: tuple[LatentGroup, ...]
    output: Tensor


class _BlockResult(NamedTuple):
    state: Tensor
    latent: Tensor
    prior_mean: Tensor
    prior_log_scale: Tensor
    posterior_mean: Tensor | None
    posterior_log_scale: Tensor | None
    reduced_state: Tensor | None


class TopDownBlock(nn.Module):
    """One latent group: its prior and posterior networks, the latent's way into the state, and a residual block."""

    def __init__(self, resolution: int, width: int, middle: int, latent_channels: int, block_count: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.width = width
        self.prior = Bottleneck(width, middle, 2 * latent_channels + width, resolution)
        self.posterior = TwoInputBottleneck(width, middle, 2 * latent_channels, resolution)
        self.latent_projection = convolution(latent_channels, width)
        self.residual = Bottleneck(width, middle, width, resolution)
        scale_weights(self.prior.expand, 0.0)
        scale_weights(self.latent_projection, math.sqrt(1 / block_count))
        scale_weights(self.residual.expand, math.sqrt(1 / block_count))

    def forward(self, state: Tensor, feature: Tensor | None, source: LatentSource, keep_state: bool) -> _BlockResult:
        """One step down: (B, C, R, R) in and out. The posterior is computed whenever there is a feature."""
        activated = F.gelu(state)
        prior_mean, prior_log_scale, update = self.prior(activated).split(
            [self.latent_channels, self.latent_channels, self.width], dim=1
        )
        prior = DiagonalGaussian(full_precision(prior_mean), full_precision(prior_log_scale))
        reduced_state = self.posterior.reduce(activated) if keep_state or feature is not None else None
        posterior = None
        if feature is not None and reduced_state is not None:
            posterior = self.posterior_from(reduced_state, feature)
        latent = _latent_from(source, prior, posterior)
        state = state + update + self.latent_projection(latent.to(state.dtype))
        state = state + self.residual(F.gelu(state))
        return _BlockResult(
            state,
            latent,
            prior.mean,
            prior.log_scale,
            posterior.mean if posterior else None,
            posterior.log_scale if posterior else None,
            reduced_state if keep_state else None,
        )

    def posterior_from(self, reduced_state: Tensor, feature: Tensor) -> DiagonalGaussian:
        """q(z_l | z_<l, x) from the kept state (B, M, R, R) and an image's feature (B, C, R, R)."""
        numbers = self.posterior(reduced_state, feature)
        mean, log_scale = full_precision(numbers).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_scale)


def _latent_from(source: LatentSource, prior: DiagonalGaussian, posterior: DiagonalGaussian | None) -> Tensor:
    match source:
        case Given(latent):
            return latent.to(prior.mean.dtype)
        case FromPrior(noise, temperature):
            return prior.sample(torch.randn_like(prior.mean) if noise is None else noise, temperature)
        case FromPosterior(noise):
            if posterior is None:
                raise ValueError("a latent from the posterior needs the image's features")
            return posterior.sample(torch.randn_like(posterior.mean) if noise is None else noise)


class Decoder(nn.Module):
    """All top-down blocks, the learned starting states, and the final gain and bias."""

    def __init__(
        self,
        stages: tuple[DecoderStage, ...],
        widths: Mapping[int, int],
        latent_channels: int,
        bottleneck_multiple: float,
        no_bias_above: int,
    ) -> None:
        super().__init__()
        self.stages = stages
        self.widths = dict(widths)
        self.checkpoint_activations = False
        self.blocks = nn.ModuleList(
            TopDownBlock(
                stage.resolution,
                widths[stage.resolution],
                int(widths[stage.resolution] * bottleneck_multiple),
                latent_channels,
                len(stages),
            )
            for stage in stages
        )
        resolutions = sorted({stage.resolution for stage in stages})
        self.start_states = nn.ParameterDict(  # from pairs: a plain dict would be sorted by name, 16 before 4
            [(str(r), nn.Parameter(torch.zeros(1, widths[r], r, r))) for r in resolutions if r <= no_bias_above]
        )
        image_width = widths[stages[-1].resolution]
        self.gain = nn.Parameter(torch.ones(1, image_width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, image_width, 1, 1))

    def forward(
        self,
        sources: Sequence[LatentSource],
        batch: int,
        features: Features | None = None,
        *,
        keep_states: bool = False,
    ) -> TopDownPass:
        """One pass from the coarsest group to the image.

        Args:
            sources: one for each group, in top-down order.
            batch: B.
            features: the encoder's; with them every group's posterior is computed, also where z is given or from the
                prior.
            keep_states: keep what `reencode` needs.

        Raises:
            ValueError: another number of sources than groups, or a posterior source without features.
        """
        states: dict[int, Tensor] = {
            int(r): bias.to(compute_dtype(bias)).expand(batch, -1, -1, -1) for r, bias in self.start_states.items()
        }
        groups = []
        for stage, block, source in zip(self.stages, self.blocks, sources, strict=True):
            state = self._entering_state(stage, states, batch)
            feature = features[stage.resolution] if features is not None else None
            if self.checkpoint_activations and torch.is_grad_enabled():
                result = checkpoint(
                    block,
                    state,
                    feature,
                    source,
                    keep_states,
                    use_reentrant=False,
                    preserve_rng_state=_draws_noise(source),
                )
            else:
                result = block(state, feature, source, keep_states)
            states[stage.resolution] = result.state
            groups.append(_group_of(result))
        final = full_precision(states[self.stages[-1].resolution])
        return TopDownPass(tuple(groups), torch.addcmul(self.bias, final, self.gain))

    def _entering_state(self, stage: DecoderStage, states: Mapping[int, Tensor], batch: int) -> Tensor:
        """h_l: the state at the stage's resolution so far, plus the upsampled coarser one where the stage begins with
        it.
        """
        state = states.get(stage.resolution)
        if stage.upsample_from is None:
            return state if state is not None else self._zero_state(stage.resolution, batch)
        coarser = states[stage.upsample_from][:, : self.widths[stage.resolution]]  # widths only grow downwards
        upsampled = F.interpolate(coarser, scale_factor=stage.resolution // stage.upsample_from)
        return upsampled if state is None else state + upsampled

    def _zero_state(self, resolution: int, batch: int) -> Tensor:
        zeros = self.gain.new_zeros(batch, self.widths[resolution], resolution, resolution)
        return zeros.to(compute_dtype(zeros))

    def reencode(self, groups: Sequence[LatentGroup], features: Features) -> tuple[DiagonalGaussian, ...]:
        """q(z_l | z_<l, x̂) for every group, from the states kept by the pass that made `groups` and the features of
        x̂.

        Equal to a second top-down pass with all latents given, at the cost of the posterior networks alone.
        """
        posteriors = []
        blocks = cast(Iterable[TopDownBlock], self.blocks)
        for stage, block, group in zip(self.stages, blocks, groups, strict=True):
            if group.reduced_state is None:
                raise ValueError("re-encoding needs a pass made with keep_states=True")
            arguments = (group.reduced_state, features[stage.resolution])
            if self.checkpoint_activations and torch.is_grad_enabled():
                posteriors.append(
                    checkpoint(block.posterior_from, *arguments, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                posteriors.append(block.posterior_from(*arguments))
        return tuple(posteriors)


def _draws_noise(source: LatentSource) -> bool:
    return not isinstance(source, Given) and source.noise is None


def _group_of(result: _BlockResult) -> LatentGroup:
    posterior = None
    if result.posterior_mean is not None and result.posterior_log_scale is not None:
        posterior = DiagonalGaussian(result.posterior_mean, result.posterior_log_scale)
    prior = DiagonalGaussian(result.prior_mean, result.prior_log_scale)
    return LatentGroup(result.latent, prior, posterior, result.reduced_state)
