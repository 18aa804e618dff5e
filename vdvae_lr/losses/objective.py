"""β·rate + distortion + α_t·LR, in nats/dim, for any VAE that can describe one of its passes.

The objective takes distributions, latents and a re-encoding function, not a model: a one-group VAE with a plain encoder
and decoder uses the same code as a VDVAE (whose passes `losses/vdvae_pass.py` describes).

Shapes: B batch, C H W image, L latent groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from torch import Tensor

from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats
from vdvae_lr.losses.latent_reconstruction import FormName, TargetGradient, group_latent_reconstruction
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.logistic_mixture import MixtureNoise
from vdvae_lr.setting_checks import Between, CountOrNone, check_settings


@dataclass(frozen=True)
class ObjectiveSettings:
    """Weights and forms of the loss (docs/method.md)."""

    beta: Annotated[float, Between(0)] = 1.0
    """Weight of the rate."""
    alpha_T: Annotated[float, Between(0)] = 1.0
    """Final weight of Latent Reconstruction; 0 is the plain ELBO at no extra cost."""
    alpha_warmup_iters: CountOrNone = 0
    """Iterations over which alpha rises linearly from 0 to alpha_T; 0: over the whole run."""
    lr_form: FormName = "information"
    """information: log p(z) - log q(z|decoded image), in nats; nll: the second term alone; standardised: squared error
    in units of the prior's scale; raw: the paper's squared error."""
    lr_target: TargetGradient = "constant"
    """constant: the latents and the prior in the LR term carry no gradient; live: they do, so keep alpha_T well below
    beta, or the prior is no longer trained (docs/method.md).
    """
    lr_image: Literal["sample", "mean"] = "sample"
    """The decoded image: a reparameterised sample of p(x|z), or the mean of its mixture."""
    lr_latents: Literal["posterior", "prior"] = "posterior"
    """Latents to reconstruct: those of the training images, or fresh ones from the prior (one generating pass more;
    it ruined samples in docs/study_lr_forms.md).
    """
    lr_reduction: Literal["sum", "mean"] = "sum"
    """sum: over latents, divided by image dimensions (nats/dim, the ELBO's unit); mean: divided by the number of
    latents.
    """

    def __post_init__(self) -> None:
        """Refuse what no loss can use; raises InputError."""
        check_settings(self)

    def alpha_at(self, iteration: int, run_iterations: int) -> float:
        """α_t: linear from 0 at the first iteration to alpha_T at the end of the warm-up, then constant."""
        length = self.alpha_warmup_iters or run_iterations
        return self.alpha_T * min(1.0, iteration / length) if length > 0 else self.alpha_T


class Likelihood(Protocol):
    """p(x|z) of a batch."""

    def log_prob(self, image: Tensor) -> Tensor:
        """log p(x|z) of images (B, C, H, W) in nats: (B, …)."""

    def mean(self) -> Tensor:
        """D(z), differentiable: (B, C, H, W)."""

    def sample(self, noise: MixtureNoise) -> Tensor:
        """A reparameterised draw, differentiable: (B, C, H, W)."""


@dataclass(frozen=True)
class LatentPass:
    """One pass of a VAE: its latents, what they were drawn from, what they decode to, and how to encode an image for
    them.
    """

    latents: Sequence[Tensor]
    priors: Sequence[DiagonalGaussian]
    posteriors: Sequence[DiagonalGaussian]  # empty when the latents are the prior's
    likelihood: Likelihood
    reencode: Callable[[Tensor], Sequence[DiagonalGaussian]]  # x̂ (B, C, H, W) → q(z_l | z_<l, x̂), z_<l this pass's own


@dataclass(frozen=True)
class ObjectiveTerms:
    """Batch means; all in nats/dim but `latent_reconstruction`, whose unit is that of its form and reduction."""

    total: Tensor
    negative_elbo: Tensor
    rate: Tensor
    distortion: Tensor
    latent_reconstruction: Tensor | None


def reconstruct_latents(settings: ObjectiveSettings, passed: LatentPass, noise: MixtureNoise | None) -> Tensor:
    """L_LR of one pass by image and group, before reduction: (B, L).

    Raises:
        ValueError: the settings ask for a sampled image and no noise was given.
    """
    if settings.lr_image == "mean":
        image = passed.likelihood.mean()
    elif noise is None:
        raise ValueError("a sampled image needs noise")
    else:
        image = passed.likelihood.sample(noise)
    return group_latent_reconstruction(
        passed.latents, passed.reencode(image), passed.priors, settings.lr_form, settings.lr_target
    )


def evaluate_objective(
    settings: ObjectiveSettings,
    passed: LatentPass,
    target: Tensor,
    alpha: float | Tensor,
    noise: MixtureNoise | None = None,
    generated: LatentPass | None = None,
) -> ObjectiveTerms:
    """The loss of one batch.

    Args:
        settings: weights and forms; with `alpha_T` 0 no LR term is computed.
        passed: the pass over the images, with posteriors.
        target: the images on the likelihood's scale (B, C, H, W).
        alpha: α_t of this iteration.
        noise: of the decoded image, for `lr_image="sample"`.
        generated: the pass from the prior, for `lr_latents="prior"`.
    """
    dimensions = target[0].numel()
    rate = group_rates_nats(passed.posteriors, passed.priors).sum(1).mean() / dimensions
    distortion = distortion_nats(passed.likelihood.log_prob(target)).mean() / dimensions
    total = settings.beta * rate + distortion
    reconstruction = None
    if settings.alpha_T > 0:
        source = passed if settings.lr_latents == "posterior" else generated
        if source is None:
            raise ValueError("latents from the prior need a generated pass")
        divisor = dimensions if settings.lr_reduction == "sum" else sum(z[0].numel() for z in source.latents)
        reconstruction = reconstruct_latents(settings, source, noise).sum(1).mean() / divisor
        total = total + alpha * reconstruction
    return ObjectiveTerms(total, rate + distortion, rate, distortion, reconstruction)
