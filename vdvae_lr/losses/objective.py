"""β_t·rate + distortion + α_t·LR, in nats/dim, for any `LatentModel`.

Shapes: B batch, C H W image, L latent groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats, rate_nats
from vdvae_lr.losses.latent_reconstruction import FormName, TargetGradient, latent_reconstruction
from vdvae_lr.losses.reading import Reading, read_again
from vdvae_lr.model.latent_model import DecodedImage, LatentModel, LatentPass
from vdvae_lr.setting_checks import Between, CountOrNone, check_settings


@dataclass(frozen=True)
class ObjectiveSettings:
    """Weights and forms of the loss (docs/method.md)."""

    beta: Annotated[float, Between(0)] = 1.0
    """Weight of the rate."""
    beta_warmup_iters: CountOrNone = 0
    """Iterations over which the weight of the rate rises linearly from 0 to beta; 0: it is beta from the start."""
    free_nats: Annotated[float, Between(0)] = 0.0
    """Free bits: the rate of a latent group costs nothing below this, in nats an image, averaged over a micro-batch;
    0: every rate costs. The log has the true rate.
    """
    alpha_T: Annotated[float, Between(0)] = 0.3
    """Final weight of Latent Reconstruction; 0 is the plain ELBO at no extra cost. The paper's is 1; the default costs
    less of the bound for each nat of information (docs/study_price.md)."""
    alpha_warmup_iters: CountOrNone = 0
    """Iterations over which alpha rises linearly from 0 to alpha_T; 0: over the whole run, up to its last
    alpha_end_iters."""
    alpha_end: Annotated[float, Between(0)] = 0.0
    """Where alpha goes at the end of the run, with alpha_end_iters."""
    alpha_end_iters: CountOrNone = 0
    """Last iterations of the run, over which alpha goes linearly from alpha_T to alpha_end; 0: it stays at alpha_T."""
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
    it ruined samples in docs/study_lr_forms.md, and a long run in docs/study_price.md).
    """
    lr_reduction: Literal["sum", "mean"] = "sum"
    """sum: over latents, divided by image dimensions (nats/dim, the ELBO's unit); mean: divided by the number of
    latents.
    """
    lr_reading: Annotated[Reading, Between(1)] = "full"
    """What the encoder sees of the decoded image in the LR term. full: all of it; a number R: the image averaged down
    to R x R pixels; random: averaged down to a random resolution, for each image and step; group: to the resolution of
    the latent group that is read (the encoder runs once for each). The evaluation always reads the full image.
    """

    def __post_init__(self) -> None:
        """Refuse settings that no loss can use; raises InputError."""
        check_settings(self)

    @property
    def uses_lr(self) -> bool:
        """Whether the loss has an LR term at all."""
        return self.alpha_T > 0

    @property
    def draws_cutoffs(self) -> bool:
        """Whether a pass needs random draws of what the encoder sees."""
        return self.uses_lr and self.lr_reading == "random"

    def alpha_rise(self, run_iterations: int) -> int:
        """Iterations over which α rises to alpha_T."""
        return self.alpha_warmup_iters or max(0, run_iterations - self.alpha_end_iters)

    def alpha_at(self, iteration: int, run_iterations: int) -> float:
        """α_t: linear from 0 at the first iteration to alpha_T at the end of the warm-up, then constant.

        Over the last `alpha_end_iters` iterations it goes linearly to alpha_end, from wherever it is.
        """
        length = self.alpha_rise(run_iterations)
        risen = self.alpha_T * min(1.0, iteration / length) if length > 0 else self.alpha_T
        if not self.uses_lr or not self.alpha_end_iters:
            return risen
        ended = max(0.0, 1 - (run_iterations - iteration) / self.alpha_end_iters)
        return risen + ended * (self.alpha_end - risen)

    def beta_at(self, iteration: int) -> float:
        """β_t, the weight of the rate: linear from 0 at the first iteration to beta at the end of its warm-up."""
        return self.beta * min(1.0, iteration / self.beta_warmup_iters) if self.beta_warmup_iters else self.beta


@dataclass(frozen=True)
class ObjectiveTerms:
    """Batch means in nats/dim. The unit of `latent_reconstruction` depends on its form and reduction."""

    total: Tensor
    negative_elbo: Tensor
    rate: Tensor
    distortion: Tensor
    latent_reconstruction: Tensor | None


def reconstruct_latents(
    settings: ObjectiveSettings,
    model: LatentModel,
    passed: LatentPass,
    noise: Sequence[Tensor] | None,
    cutoff: Tensor | None = None,
) -> Tensor:
    """L_LR of one pass with kept contexts, by image, before reduction: (B,).

    Raises:
        ValueError: the settings ask for a sampled image or a random reading, and there is no noise for it.
    """
    image = passed.decoded(settings.lr_image, noise)
    reencoded = read_again(settings.lr_reading, model, passed, image, cutoff)
    return latent_reconstruction(passed.latents, reencoded, passed.priors, settings.lr_form, settings.lr_target)


def _rates_nats(settings: ObjectiveSettings, passed: LatentPass) -> tuple[Tensor, Tensor]:
    """The rate of an image, averaged over the batch, and what of it costs: () each.

    With free bits the latter is Σ_l max(free_nats, KL_l), where KL_l is the rate of group l averaged over the batch
    (Kingma et al. 2016). The rate of a group below `free_nats` has no gradient.
    """
    if not settings.free_nats:
        rate = rate_nats(passed.posteriors, passed.priors).mean()
        return rate, rate
    by_group = group_rates_nats(passed.posteriors, passed.priors).mean(0)
    return by_group.sum(), by_group.clamp(min=settings.free_nats).sum()


def evaluate_objective(
    settings: ObjectiveSettings,
    model: LatentModel,
    passed: LatentPass,
    target: Tensor,
    alpha: float | Tensor,
    noise: Sequence[Tensor] | None = None,
    generated: LatentPass | None = None,
    *,
    beta: float | Tensor | None = None,
    cutoff: Tensor | None = None,
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
        beta: β_t of this iteration; None: `settings.beta`.
        cutoff: uniform draws (B, 1, 1, 1), for `lr_reading="random"`.

    Raises:
        ValueError: noise or a generated pass is missing.
    """
    dimensions = target[0].numel()
    rate, costly_rate = (nats / dimensions for nats in _rates_nats(settings, passed))
    distortion = distortion_nats(passed.likelihood.log_prob(target)).mean() / dimensions
    total = (settings.beta if beta is None else beta) * costly_rate + distortion
    reconstruction = None
    if settings.uses_lr:
        source = passed if settings.lr_latents == "posterior" else generated
        if source is None:
            raise ValueError("latents from the prior need a generated pass")
        divisor = dimensions if settings.lr_reduction == "sum" else sum(z[0].numel() for z in source.latents)
        reconstruction = reconstruct_latents(settings, model, source, noise, cutoff).mean() / divisor
        total = total + alpha * reconstruction
    return ObjectiveTerms(total, rate + distortion, rate, distortion, reconstruction)
