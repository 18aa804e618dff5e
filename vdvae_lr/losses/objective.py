"""β·rate + distortion + α_t·LR, in nats/dim, for any `LatentModel`.

Shapes: B batch, C H W image, L latent groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from vdvae_lr.losses.elbo import distortion_nats, rate_nats
from vdvae_lr.losses.latent_reconstruction import FormName, TargetGradient, latent_reconstruction
from vdvae_lr.model.latent_model import DecodedImage, LatentModel, LatentPass
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
    lr_image: DecodedImage = "sample"
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
        """Refuse settings that no loss can use; raises InputError."""
        check_settings(self)

    def alpha_at(self, iteration: int, run_iterations: int) -> float:
        """α_t: linear from 0 at the first iteration to alpha_T at the end of the warm-up, then constant."""
        length = self.alpha_warmup_iters or run_iterations
        return self.alpha_T * min(1.0, iteration / length) if length > 0 else self.alpha_T


@dataclass(frozen=True)
class ObjectiveTerms:
    """Batch means in nats/dim. The unit of `latent_reconstruction` depends on its form and reduction."""

    total: Tensor
    negative_elbo: Tensor
    rate: Tensor
    distortion: Tensor
    latent_reconstruction: Tensor | None


def reconstruct_latents(
    settings: ObjectiveSettings, model: LatentModel, passed: LatentPass, noise: Sequence[Tensor] | None
) -> Tensor:
    """L_LR of one pass with kept contexts, by image, before reduction: (B,).

    Raises:
        ValueError: the settings ask for a sampled image, and there is no noise.
    """
    reencoded = model.reencode(passed, passed.decoded(settings.lr_image, noise))
    return latent_reconstruction(passed.latents, reencoded, passed.priors, settings.lr_form, settings.lr_target)


def evaluate_objective(
    settings: ObjectiveSettings,
    model: LatentModel,
    passed: LatentPass,
    target: Tensor,
    alpha: float | Tensor,
    noise: Sequence[Tensor] | None = None,
    generated: LatentPass | None = None,
) -> ObjectiveTerms:
    """The loss of one batch.

    Args:
        settings: weights and forms. With `alpha_T` 0 no LR term is computed.
        model: the model that made the passes. It re-encodes the decoded images.
        passed: the pass over the images, with posteriors; with kept contexts if its latents are reconstructed.
        target: the images on the likelihood's scale (B, C, H, W).
        alpha: α_t of this iteration.
        noise: the noise of the decoded image, for `lr_image="sample"`.
        generated: the pass from the prior with kept contexts, for `lr_latents="prior"`.

    Raises:
        ValueError: noise or a generated pass is missing.
    """
    dimensions = target[0].numel()
    rate = rate_nats(passed.posteriors, passed.priors).mean() / dimensions
    distortion = distortion_nats(passed.likelihood.log_prob(target)).mean() / dimensions
    total = settings.beta * rate + distortion
    reconstruction = None
    if settings.alpha_T > 0:
        source = passed if settings.lr_latents == "posterior" else generated
        if source is None:
            raise ValueError("latents from the prior need a generated pass")
        divisor = dimensions if settings.lr_reduction == "sum" else sum(z[0].numel() for z in source.latents)
        reconstruction = reconstruct_latents(settings, model, source, noise).mean() / divisor
        total = total + alpha * reconstruction
    return ObjectiveTerms(total, rate + distortion, rate, distortion, reconstruction)
