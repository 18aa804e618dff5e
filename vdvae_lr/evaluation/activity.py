"""Which latents say anything about the image: active units (Burda, Grosse and Salakhutdinov 2016), in a hierarchy.

A latent is active when its posterior mean varies over the data by at least `ACTIVE_VARIANCE`. In a hierarchy the
posterior mean of group l also moves with the z_<l that were drawn, even where q ignores the image; so the means are
taken along the path where every group takes its posterior's mean, which depends on the image alone.

Shapes: B images, Z latent channels, R a group's resolution.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import EvaluationBatch, levels_for, model_device
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.model.decoder import FromPosterior, LatentGroup
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.vae import VDVAE

ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class Activity:
    """Shares between 0 and 1 of what varies with the image.

    `relative` compares the variance with the prior's own, so that it does not matter how large latents are. A channel
    counts as one latent whose variance is the average over its positions.
    """

    examples: int
    latents: float
    latents_relative: float
    channels: float
    channels_relative: float


class LatentStatistics:
    """Streaming variance of every posterior mean, and the prior's average variance, in float64.

    Args:
        latent_shapes: (Z, R, R) of every group.
        device: where the passes are made.
    """

    def __init__(self, latent_shapes: Sequence[tuple[int, int, int]], device: torch.device) -> None:
        self._means = [Moments(shape, device) for shape in latent_shapes]
        self._prior_variances = [Moments(shape, device) for shape in latent_shapes]

    def add(self, posteriors: Sequence[DiagonalGaussian], priors: Sequence[DiagonalGaussian]) -> None:
        """Take in one batch: every group's distributions, (B, Z, R, R) each."""
        for moments, posterior in zip(self._means, posteriors, strict=True):
            moments.add(posterior.mean)
        for moments, prior in zip(self._prior_variances, priors, strict=True):
            moments.add((2 * prior.log_scale.double()).exp())

    def all_reduce_(self, world: World) -> None:
        """Put the processes' statistics together; every process must call this."""
        for moments in (*self._means, *self._prior_variances):
            moments.all_reduce_(world)

    def activity(self, threshold: float = ACTIVE_VARIANCE) -> Activity:
        """Shares of latents and channels at or above `threshold`.

        Raises:
            InputError: fewer than two examples, which have no variance.
        """
        if self._means[0].count < 2:
            raise InputError("activity is a variance over images and needs at least 2 of them; evaluate on more.")
        variances = [moments.variance for moments in self._means]
        priors = [moments.mean for moments in self._prior_variances]
        return Activity(
            self._means[0].count,
            latents=_share(variances, threshold),
            latents_relative=_share([v / p for v, p in zip(variances, priors, strict=True)], threshold),
            channels=_share([_by_channel(v) for v in variances], threshold),
            channels_relative=_share(
                [_by_channel(v) / _by_channel(p) for v, p in zip(variances, priors, strict=True)], threshold
            ),
        )


def _by_channel(values: Tensor) -> Tensor:
    """Average over positions: (Z, R, R) → (Z,)."""
    return values.mean((1, 2))


def _share(groups: Sequence[Tensor], threshold: float) -> float:
    values = torch.cat([group.flatten() for group in groups])
    return (values >= threshold).double().mean().item()


def mean_path(model: VDVAE, levels: Tensor) -> tuple[tuple[DiagonalGaussian, ...], tuple[DiagonalGaussian, ...]]:
    """Posteriors and priors of every group for images (B, C, H, W) as levels, each z_l its posterior's mean."""
    sources = [FromPosterior(levels.new_zeros(1, *shape)) for shape in model.latent_shapes]
    groups = model.top_down(sources, levels.shape[0], model.encode(levels)).groups
    return tuple(_posterior_of(group) for group in groups), tuple(group.prior for group in groups)


def _posterior_of(group: LatentGroup) -> DiagonalGaussian:
    assert group.posterior is not None  # a pass with features has one for every group
    return group.posterior


@torch.inference_mode()
def measure_activity(model: VDVAE, batches: Iterable[EvaluationBatch], *, world: World) -> Activity:
    """Activity over all examples of all processes' `batches`; exact in any order, no noise involved.

    Raises:
        InputError: fewer than two examples.
    """
    statistics = LatentStatistics(model.latent_shapes, model_device(model))
    for batch in batches:
        statistics.add(*mean_path(model, levels_for(model, batch.pixels)))
    statistics.all_reduce_(world)
    return statistics.activity()


def mean_prior_scale(priors: Sequence[DiagonalGaussian]) -> Tensor:
    """σ_p averaged over all latents of an image: (B,). It falls when an objective shrinks the latents."""
    return torch.cat([prior.log_scale.flatten(1) for prior in priors], dim=1).exp().mean(1)
