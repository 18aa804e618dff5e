"""A pass group by group, for tests that compare groups one by one."""

from typing import NamedTuple

import torch
from torch import Tensor

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentPass, Latents


class Group(NamedTuple):
    latent: Tensor
    prior: DiagonalGaussian
    posterior: DiagonalGaussian | None
    context: Tensor | None


def groups_of(passed: Latents) -> list[Group]:
    count = len(passed.latents)
    posteriors, contexts = passed.posteriors or [None] * count, passed.contexts or [None] * count
    return [Group(*parts) for parts in zip(passed.latents, passed.priors, posteriors, contexts, strict=True)]


def output_of(passed: LatentPass) -> Tensor:
    """All numbers of the logistic mixture of a VDVAE: (B, ...)."""
    mixture = passed.likelihood
    return torch.cat([part.flatten(1) for part in (mixture.logits, mixture.means, mixture.log_scales)], dim=1)
