"""A VDVAE's top-down pass as the objective wants to see it."""

from torch import Tensor

from vdvae_lr.losses.objective import LatentPass
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.vdvae.decoder import TopDownPass
from vdvae_lr.model.vdvae.vae import VDVAE


def describe_pass(model: VDVAE, passed: TopDownPass) -> LatentPass:
    """Latents, distributions and likelihood of `passed`; its `reencode` needs a pass made with `keep_states=True`."""

    def reencode(image: Tensor) -> tuple[DiagonalGaussian, ...]:
        return model.reencode(passed, image)

    groups = passed.groups
    return LatentPass(
        latents=[group.latent for group in groups],
        priors=[group.prior for group in groups],
        posteriors=[group.posterior for group in groups if group.posterior is not None],
        likelihood=model.likelihood(passed.output),
        reencode=reencode,
    )
