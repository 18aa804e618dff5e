"""The top-down pass of a VDVAE, for latents from any `LatentSource`.

Operations are few and large. The prior and the posterior network of a block have one shape and read one state, so they
run as one network whose convolutions have two groups. All blocks of a resolution read one feature, so one convolution
serves them. The state h_l that enters block l depends on z_<l only; so all blocks of a resolution re-encode another
image for the same latents at once, from what a pass keeps of their states.

Shapes: B batch, C width at the group's resolution R, M bottleneck width, Z latent channels, n blocks at R.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import Given, Latents, LatentSource, latent_from
from vdvae_lr.model.precision import compute_dtype, full_precision
from vdvae_lr.model.vdvae.encoder import Features
from vdvae_lr.model.vdvae.layers import (
    Bottleneck,
    Layer,
    TwoInputBottleneck,
    channels_innermost,
    convolution,
    joined,
    recomputed_from,
    scale_weights,
)
from vdvae_lr.model.vdvae.layout import DecoderStage

BlockResult = tuple[Tensor, Tensor, DiagonalGaussian, DiagonalGaussian | None, Tensor | None]
"""New state, latent, prior, posterior (None without a feature), and reduced state (None unless it is kept)."""


class PairedNetworks(NamedTuple):
    """The prior and the posterior network of a block as one: the prior's outputs come first in every layer.

    The weights are those of the block's own layers, joined for one pass.
    """

    reduce: Layer
    """Of the activated state: C → 2M."""
    mix_1: Layer
    """M → M in each of two groups; so is `mix_2`."""
    mix_2: Layer
    numbers: Layer
    """M → 2Z in each of two groups: mean and log-scale."""
    update: Layer
    """Of the prior's hidden features and the latent: M + Z → C, what both add to the state."""

    def prior_alone(self) -> "PairedNetworks":
        """The prior's half."""
        both = {name: layer for name, layer in self._asdict().items() if name != "update"}
        return self._replace(**{name: Layer(layer.weight, layer.bias).split(2)[0] for name, layer in both.items()})


class TopDownBlock(nn.Module):
    """One latent group: prior and posterior networks, the projection of the latent, and a residual block."""

    def __init__(self, resolution: int, width: int, middle: int, latent_channels: int, block_count: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.middle = middle
        self.prior = Bottleneck(width, middle, 2 * latent_channels + width, resolution)
        self.posterior = TwoInputBottleneck(width, middle, 2 * latent_channels, resolution)
        self.latent_projection = convolution(latent_channels, width)
        self.residual = Bottleneck(width, middle, width, resolution)
        scale_weights(self.prior.expand, 0.0)
        scale_weights(self.latent_projection, math.sqrt(1 / block_count))
        scale_weights(self.residual.expand, math.sqrt(1 / block_count))

    def forward(
        self, state: Tensor, source: LatentSource, networks: PairedNetworks, feature: Tensor | None, keep_state: bool
    ) -> BlockResult:
        """One step down: (B, C, R, R) in and out. The posterior is computed whenever there is a feature.

        Args:
            state: h_l.
            source: where the latents come from.
            networks: prior and posterior network of this block.
            feature: what the image adds to the reduced state, (B, 2M, R, R), zero for the prior.
            keep_state: return the posterior's half of the reduced state.
        """
        if feature is None and not keep_state:
            networks = networks.prior_alone()
        reduced = networks.reduce(F.gelu(state))
        kept = reduced[:, self.middle :] if keep_state else None
        if feature is not None:
            reduced = reduced + feature
        elif keep_state:
            networks, reduced = networks.prior_alone(), reduced[:, : self.middle]
        hidden = F.gelu(networks.mix_1(F.gelu(reduced)))
        hidden = F.gelu(networks.mix_2(hidden))
        mean, log_scale, *others = full_precision(networks.numbers(hidden)).split(self.latent_channels, dim=1)
        prior = DiagonalGaussian(mean, log_scale)
        posterior = DiagonalGaussian(*others) if others else None
        latent = latent_from(source, prior, posterior)
        state = state + networks.update(torch.cat([hidden[:, : self.middle], latent.to(state.dtype)], dim=1))
        state = state + self.residual(F.gelu(state))
        return state, latent, prior, posterior, kept

    def opening_weights(self) -> tuple[Tensor, Tensor]:
        """Of the latent's projection into the state (C, Z, 1, 1), and of the posterior's mean (Z, M, 1, 1)."""
        return self.latent_projection.weight, self.posterior.expand.weight[: self.latent_channels]


def paired_networks(blocks: Sequence[TopDownBlock]) -> list[PairedNetworks]:
    """The paired networks of n blocks of one shape, made by a few operations for all of them."""
    count, channels = len(blocks), 2 * blocks[0].latent_channels
    pairs: list[Bottleneck | TwoInputBottleneck] = [
        network for block in blocks for network in (block.prior, block.posterior)
    ]
    expand = joined([block.prior.expand for block in blocks])
    projection = joined([block.latent_projection for block in blocks])
    posterior = joined([block.posterior.expand for block in blocks])
    expand_weight, expand_bias = (numbers.unflatten(0, (count, -1)) for numbers in expand[:2])
    prior_weight, update_weight = expand_weight.tensor_split([channels], dim=1)
    prior_bias, update_bias = expand_bias.tensor_split([channels], dim=1)
    return [
        PairedNetworks(*layers)
        for layers in zip(
            joined([network.reduce for network in pairs]).split(count),
            joined([network.mix_1 for network in pairs]).split(count, groups=2),
            joined([network.mix_2 for network in pairs]).split(count, groups=2),
            map(
                Layer,
                torch.cat([prior_weight, posterior.weight.unflatten(0, (count, -1))], dim=1).unbind(),
                torch.cat([prior_bias, posterior.bias.unflatten(0, (count, -1))], dim=1).unbind(),
                [2] * count,
            ),
            map(
                Layer,
                torch.cat([update_weight, projection.weight.unflatten(0, (count, -1))], dim=2).unbind(),
                (update_bias + projection.bias.unflatten(0, (count, -1))).unbind(),
            ),
            strict=True,
        )
    ]


class Decoder(nn.Module):
    """All top-down blocks, the learned starting states, and the gain and bias of the final state."""

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
        self.recomputed_from: int | None = None
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
        self._groups_at: dict[int, list[int]] = {}
        for group, stage in enumerate(stages):
            self._groups_at.setdefault(stage.resolution, []).append(group)
        self.start_states = nn.ParameterDict(  # from pairs: it would sort a plain dict by name, 16 before 4
            [(str(r), nn.Parameter(torch.zeros(1, widths[r], r, r))) for r in self._groups_at if r <= no_bias_above]
        )
        image_width = widths[stages[-1].resolution]
        self.gain = nn.Parameter(torch.ones(1, image_width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, image_width, 1, 1))

    def forward(
        self, sources: Sequence[LatentSource], batch: int, features: Features | None = None, *, keep_states: bool
    ) -> tuple[Latents, Tensor]:
        """One pass from the coarsest group to the image (see `LatentModel.top_down`).

        Returns:
            The latents, whose contexts are every group's reduced state (B, M, R, R); and the final state (B, C, H, W).
        """
        states: dict[int, Tensor] = {
            int(r): bias.to(compute_dtype(bias)).expand(batch, -1, -1, -1) for r, bias in self.start_states.items()
        }
        networks, parts = self._networks(), self._image_parts(features)
        results: list[BlockResult] = []
        for group, (stage, block, source) in enumerate(zip(self.stages, self.blocks, sources, strict=True)):
            state = self._entering_state(stage, states, batch)
            draws_noise = not isinstance(source, Given) and source.noise is None
            result: BlockResult = recomputed_from(
                self.recomputed_from,
                stage.resolution,
                block,
                *(state, source, networks[group], parts.get(group), keep_states),
                draws_noise=draws_noise,
            )
            states[stage.resolution] = result[0]
            results.append(result)
        _, latents, priors, posteriors, kept = zip(*results, strict=True)
        passed = Latents(latents, priors, posteriors if features is not None else (), kept if keep_states else ())
        return passed, states[self.stages[-1].resolution]

    def _blocks_at(self, resolution: int) -> list[TopDownBlock]:
        return [cast(TopDownBlock, self.blocks[group]) for group in self._groups_at[resolution]]

    def _networks(self) -> dict[int, PairedNetworks]:
        """The paired networks of every group."""
        made: dict[int, PairedNetworks] = {}
        for resolution, groups in self._groups_at.items():
            made |= zip(groups, paired_networks(self._blocks_at(resolution)), strict=True)
        return made

    def _image_parts(self, features: Features | None) -> dict[int, Tensor]:
        """What an image adds to every group's reduced state: (B, 2M, R, R), zero for the prior's half."""
        if features is None:
            return {}
        parts: dict[int, Tensor] = {}
        for resolution, groups in self._groups_at.items():
            part = self._reduced_feature(resolution, features).permute(0, 2, 3, 1).unflatten(3, (len(groups), -1))
            padded = F.pad(part, (part.shape[-1], 0)).flatten(3).permute(0, 3, 1, 2)
            parts |= zip(groups, padded.chunk(len(groups), dim=1), strict=True)
        return parts

    def _reduced_feature(self, resolution: int, features: Features) -> Tensor:
        """What an image adds to the posteriors' reduced states at a resolution: (B, n·M, R, R)."""
        weight = torch.cat([block.posterior.reduce_feature.weight for block in self._blocks_at(resolution)])
        return F.conv2d(F.gelu(features[resolution]), weight)

    def _entering_state(self, stage: DecoderStage, states: Mapping[int, Tensor], batch: int) -> Tensor:
        """h_l: the state so far at the stage's resolution, plus the upsampled coarser state if the stage adds one."""
        state = states.get(stage.resolution)
        if stage.upsample_from is None:
            if state is None:
                state = self.gain.new_zeros(batch, self.widths[stage.resolution], stage.resolution, stage.resolution)
                state = state.to(compute_dtype(state))
        else:
            coarser = states[stage.upsample_from][:, : self.widths[stage.resolution]]  # widths only grow downwards
            upsampled = F.interpolate(coarser, scale_factor=stage.resolution // stage.upsample_from)
            state = upsampled if state is None else upsampled + state
        return channels_innermost(state)

    def posteriors(self, latents: Latents, features: Features) -> tuple[DiagonalGaussian, ...]:
        """q(z_l | z_<l, x) of every group from its kept state and an image's features (see `LatentModel.posterior`).

        The blocks of a resolution do not wait for each other, so convolutions with n groups do all of them at once.
        """
        _check_kept(latents)
        found: dict[int, DiagonalGaussian] = {}
        for resolution, groups in self._groups_at.items():
            kept = torch.cat([latents.contexts[group] for group in groups], dim=1)
            networks = [block.posterior for block in self._blocks_at(resolution)]
            numbers = recomputed_from(
                self.recomputed_from,
                resolution,
                _posteriors_at_once,
                networks,
                kept + self._reduced_feature(resolution, features),
            )
            pieces = numbers.chunk(2 * len(groups), dim=1)
            found |= zip(groups, map(DiagonalGaussian, pieces[::2], pieces[1::2]), strict=True)
        return tuple(found[group] for group in range(len(self.stages)))

    def posterior(self, group: int, latents: Latents, features: Features) -> DiagonalGaussian:
        """The same of one group."""
        _check_kept(latents)
        network = cast(TopDownBlock, self.blocks[group]).posterior
        numbers = network(latents.contexts[group], features[self.stages[group].resolution])
        return DiagonalGaussian(*full_precision(numbers).chunk(2, dim=1))


def _check_kept(latents: Latents) -> None:
    if not latents.contexts:
        raise ValueError("re-encoding needs a pass made with keep_contexts=True")


def _posteriors_at_once(networks: Sequence[TwoInputBottleneck], reduced: Tensor) -> Tensor:
    """Means and log-scales (B, n·2Z, R, R) from the reduced states of n networks (B, n·M, R, R), each for its own."""
    for layers in zip(*((network.mix_1, network.mix_2, network.expand) for network in networks), strict=True):
        reduced = joined(layers, groups=len(networks))(F.gelu(reduced))
    return full_precision(reduced)
