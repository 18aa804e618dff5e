"""Edit latents slowly, to check the fast way: one pass for each group, with all coarser groups given.

Shapes: B images, L latent groups of (Z, R, R).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from latent_groups import groups_of
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import FromPrior, Given


def image_of(model: VDVAE, latents: Sequence[Tensor]) -> np.ndarray:
    """The mean image of the mixture for given latents, as levels (B, H, W, C)."""
    with torch.no_grad():
        mean = model.decode(latents).likelihood.mean()
    return ((mean + 1) * 127.5).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


def posterior_means(model: VDVAE, pictures: np.ndarray) -> list[Tensor]:
    """Latents in which each group is the mean of its posterior given the coarser groups; one pass for each group."""
    levels = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(model.weight)
    latents: list[Tensor] = []
    with torch.no_grad():
        features = model.encode(levels)
        for number in range(len(model.latent_shapes)):
            passed = model.top_down(_then_prior(model, latents), len(pictures), features)
            posterior = groups_of(passed)[number].posterior
            assert posterior is not None
            latents.append(posterior.mean)
    return latents


def standardised(model: VDVAE, latents: Sequence[Tensor]) -> list[Tensor]:
    """(z − μ_p)/σ_p for every group."""
    with torch.no_grad():
        groups = groups_of(model.top_down([Given(latent) for latent in latents], len(latents[0])))
    return [(group.latent - group.prior.mean) / group.prior.log_scale.exp() for group in groups]


def following(model: VDVAE, given: Mapping[int, Tensor], noise: Sequence[Tensor]) -> list[Tensor]:
    """Latents that are `given` in some groups, and μ_p(z_<l) + σ_p(z_<l) · noise in the other groups."""
    latents: list[Tensor] = []
    with torch.no_grad():
        for number, draw in enumerate(noise):
            prior = groups_of(model.top_down(_then_prior(model, latents), len(draw)))[number].prior
            latents.append(given.get(number, prior.mean + prior.log_scale.exp() * draw))
    return latents


def _then_prior(model: VDVAE, latents: Sequence[Tensor]) -> list[Given | FromPrior]:
    return [*map(Given, latents), *[FromPrior()] * (len(model.latent_shapes) - len(latents))]
