"""The base of VAEs with one group of latents, whose features of an image are its posterior.

Shapes: B images, Z latents.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass, Latents, LatentSource, Likelihood, latent_from


class OneGroupModel(LatentModel):
    """A model of one group of latents (B, Z, 1, 1). `encode` gives q(z|x), and the config has `latents`, which is Z."""

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """(Z, 1, 1) of the one group."""
        return ((self.config.latents, 1, 1),)

    @abstractmethod
    def prior(self, batch: int) -> DiagonalGaussian:
        """p(z) for so many images, (B, Z, 1, 1)."""

    @abstractmethod
    def likelihood(self, latent: Tensor) -> Likelihood:
        """p(x|z) for latents (B, Z, 1, 1)."""

    def top_down(
        self,
        sources: Sequence[LatentSource],
        batch: int,
        features: DiagonalGaussian | None = None,
        *,
        keep_contexts: bool = False,
    ) -> LatentPass:
        """One pass; the posterior needs no contexts."""
        (source,) = sources
        prior = self.prior(batch)
        latent = latent_from(source, prior, features)
        posteriors = () if features is None else (features,)
        return LatentPass((latent,), (prior,), posteriors, (), self.likelihood(latent))

    def posterior(self, group: int, latents: Latents, features: DiagonalGaussian) -> DiagonalGaussian:
        """q(z|x), which `encode` gave."""
        return features
