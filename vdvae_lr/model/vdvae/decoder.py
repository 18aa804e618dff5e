"""The top-down pass of a VDVAE, for latents from any `LatentSource`.

The state h_l that enters block l depends on z_<l only. So the reduced state that a pass keeps of it is enough to
re-encode another image for the same latents, without a second pass.

Shapes: B batch, C width at the group's resolution R, M bottleneck width, Z latent channels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import Given, Latents, LatentSource, latent_from
from vdvae_lr.model.precision import compute_dtype, full_precision
from vdvae_lr.model.vdvae.encoder import Features
from vdvae_lr.model.vdvae.layers import (
    Bottleneck,
    TwoInputBottleneck,
    convolution,
    maybe_recomputed,
    scale_weights,
)
from vdvae_lr.model.vdvae.layout import DecoderStage

BlockResult = tuple[Tensor, Tensor, DiagonalGaussian, DiagonalGaussian | None, Tensor | None]
"""New state, latent, prior, posterior (None without a feature), and reduced state (None unless it is kept)."""


class TopDownBlock(nn.Module):
    """One latent group: prior and posterior networks, the projection of the latent, and a residual block."""

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

    def forward(self, state: Tensor, feature: Tensor | None, source: LatentSource, keep_state: bool) -> BlockResult:
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
        latent = latent_from(source, prior, posterior)
        state = state + update + self.latent_projection(latent.to(state.dtype))
        state = state + self.residual(F.gelu(state))
        return state, latent, prior, posterior, reduced_state if keep_state else None

    def posterior_from(self, reduced_state: Tensor, feature: Tensor) -> DiagonalGaussian:
        """q(z_l | z_<l, x) from the kept state (B, M, R, R) and an image's feature (B, C, R, R)."""
        numbers = self.posterior(reduced_state, feature)
        mean, log_scale = full_precision(numbers).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_scale)


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
        self.start_states = nn.ParameterDict(  # from pairs: it would sort a plain dict by name, 16 before 4
            [(str(r), nn.Parameter(torch.zeros(1, widths[r], r, r))) for r in resolutions if r <= no_bias_above]
        )
        image_width = widths[stages[-1].resolution]
        self.gain = nn.Parameter(torch.ones(1, image_width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, image_width, 1, 1))

    def forward(
        self, sources: Sequence[LatentSource], batch: int, features: Features | None = None, *, keep_states: bool
    ) -> tuple[Latents, Tensor]:
        """One pass from the coarsest group to the image (see `LatentModel.top_down`).

        Returns:
            The latents, whose contexts are every group's reduced state (B, M, R, R); and the scaled final state
            (B, C, H, W) that the output convolution reads.
        """
        states: dict[int, Tensor] = {
            int(r): bias.to(compute_dtype(bias)).expand(batch, -1, -1, -1) for r, bias in self.start_states.items()
        }
        results: list[BlockResult] = []
        for stage, block, source in zip(self.stages, self.blocks, sources, strict=True):
            state = self._entering_state(stage, states, batch)
            feature = features[stage.resolution] if features is not None else None
            draws_noise = not isinstance(source, Given) and source.noise is None
            result: BlockResult = maybe_recomputed(
                self.checkpoint_activations, block, state, feature, source, keep_states, draws_noise=draws_noise
            )
            states[stage.resolution] = result[0]
            results.append(result)
        _, latents, priors, posteriors, kept = zip(*results, strict=True)
        passed = Latents(latents, priors, posteriors if features is not None else (), kept if keep_states else ())
        final = full_precision(states[self.stages[-1].resolution])
        return passed, torch.addcmul(self.bias, final, self.gain)

    def _entering_state(self, stage: DecoderStage, states: Mapping[int, Tensor], batch: int) -> Tensor:
        """h_l: the state so far at the stage's resolution, plus the upsampled coarser state if the stage adds one."""
        state = states.get(stage.resolution)
        if stage.upsample_from is None:
            if state is None:
                state = self.gain.new_zeros(batch, self.widths[stage.resolution], stage.resolution, stage.resolution)
                state = state.to(compute_dtype(state))
            return state
        coarser = states[stage.upsample_from][:, : self.widths[stage.resolution]]  # widths only grow downwards
        upsampled = F.interpolate(coarser, scale_factor=stage.resolution // stage.upsample_from)
        return upsampled if state is None else state + upsampled

    def posterior(self, group: int, latents: Latents, features: Features) -> DiagonalGaussian:
        """q(z_l | z_<l, x) of one group from its kept state and an image's features (see `LatentModel.posterior`)."""
        if not latents.contexts:
            raise ValueError("re-encoding needs a pass made with keep_contexts=True")
        block = cast(TopDownBlock, self.blocks[group])
        feature = features[self.stages[group].resolution]
        return maybe_recomputed(self.checkpoint_activations, block.posterior_from, latents.contexts[group], feature)
