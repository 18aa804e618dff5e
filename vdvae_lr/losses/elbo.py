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


def all_groups(tensors: Sequence[Tensor]) -> Tensor:
    """The numbers of all groups, (B, Z, R, R) each, side by side: (B, …), in an order that depends on shapes alone.

    A sum over all groups takes as many operations this way as one group does.
    """
    if len({tensor.shape[1] for tensor in tensors}) > 1:
        return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)
    return torch.cat([tensor.flatten(2).mT for tensor in tensors], dim=1)  # views, where channels are innermost


def all_gaussians(gaussians: Sequence[DiagonalGaussian]) -> DiagonalGaussian:
    """The distribution of `all_groups` of the latents."""
    means, log_scales = ([getattr(gaussian, name) for gaussian in gaussians] for name in ("mean", "log_scale"))
    return DiagonalGaussian(all_groups(means), all_groups(log_scales))


def rate_nats(posteriors: Sequence[DiagonalGaussian], priors: Sequence[DiagonalGaussian]) -> Tensor:
    """The rate, KL(q(z|x) ‖ p(z)), of every image in nats: (B,)."""
    return per_image(all_gaussians(posteriors).kl_to(all_gaussians(priors)))


def group_rates_nats(posteriors: Sequence[DiagonalGaussian], priors: Sequence[DiagonalGaussian]) -> Tensor:
    """KL(q(z_l|z_<l, x) ‖ p(z_l|z_<l)) of every image and group, in nats: (B, L). The sum over L is the rate."""
    return torch.stack([per_image(q.kl_to(p)) for q, p in zip(posteriors, priors, strict=True)], dim=1)


def distortion_nats(log_prob: Tensor) -> Tensor:
    """−log p(x|z) from log-probabilities of any shape (B, …), in nats per image: (B,)."""
    return -per_image(log_prob)
