"""The evidence lower bound of a VAE with any number of latent groups.

The functions return costs in nats per image: rate + distortion = −ELBO ≥ −log p(x).

Shapes: B batch, L latent groups.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vdvae_lr.model.gaussian import DiagonalGaussian


def per_image(values: Tensor) -> Tensor:
    """Sum over everything but the batch: (B, …) → (B,)."""
    return values.flatten(1).sum(1)


def group_rates_nats(posteriors: Sequence[DiagonalGaussian], priors: Sequence[DiagonalGaussian]) -> Tensor:
    """KL(q(z_l|z_<l, x) ‖ p(z_l|z_<l)) of every image and group, in nats: (B, L). The sum over L is the rate."""
    return torch.stack([per_image(q.kl_to(p)) for q, p in zip(posteriors, priors, strict=True)], dim=1)


def distortion_nats(log_prob: Tensor) -> Tensor:
    """−log p(x|z) from log-probabilities of any shape (B, …), in nats per image: (B,)."""
    return -per_image(log_prob)
