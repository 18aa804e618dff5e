"""All measurements of one model, section by section, and on how many images each is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.activity import ACTIVE_VARIANCE, ActivityReader
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.evaluation.importance import measure_importance
from vdvae_lr.evaluation.information import measure_information_from_samples
from vdvae_lr.evaluation.jacobian.section import measure_bi_lipschitz
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.mutual_information import measure_mutual_information
from vdvae_lr.evaluation.noise_response import NoiseUnit, check_variances
from vdvae_lr.evaluation.noise_section import NOISE_IMAGES, NOISE_VARIANCES, measure_noise
from vdvae_lr.evaluation.posterior_passes import read_passes
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.rates import RatesReader
from vdvae_lr.evaluation.recovery import RecoveryReader
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.setting_checks import Between, Count, CountOrNone, check_settings


@dataclass(frozen=True)
class SectionSettings:
    """How much of each section is measured; a count above the number of images means all of them."""

    content_dimensions: CountOrNone = 0
    """Also state bound, distortion and rate on this many dimensions an image: 784 for 28x28 images padded to 32x32; 0:
    do not."""
    active_threshold: Annotated[float, Between(0, above=True)] = ACTIVE_VARIANCE
    """Least variance of an active unit's posterior mean over the images, as it is and in units of the prior's."""
    mixture_batch: CountOrNone = 32
    """Images in a mixture for the mutual information within batches. The logarithm of this number is its ceiling. 0:
    leave it out."""
    mixture_images: CountOrNone = 32
    """Images whose latents are asked for in the mixture over all measured images. Each costs the posterior networks for
    every image. 0: leave it out."""
    importance_images: CountOrNone = 50
    """Images for the importance-weighted bound, with one pass for each of their draws; 0: leave it out."""
    importance_draws: Count = 64
    """Draws of the latents for each image, for importance weights."""
    gap_images: CountOrNone = 4
    """Images for the distance from the true posterior by group, with all draws made anew for each group; 0: leave it
    out."""
    jacobian_images: CountOrNone = 4
    """Images, and samples, at which the decoder's Jacobian is measured; 0: leave it out."""
    jacobian_values: Count = 8
    """Singular values of each group, from the largest down."""
    jacobian_tolerance: Annotated[float, Between(0, above=True)] = 1e-3
    """Error of a singular value, as a share of the largest, at which it counts as found."""
    noise_images: CountOrNone = NOISE_IMAGES
    """Images for the noise response; 0: leave it out."""
    noise_variances: tuple[float, ...] = NOISE_VARIANCES
    """Variances of the noise added to the latents."""
    noise_units: tuple[NoiseUnit, ...] = ("raw", "prior_scale")
    """Units of that noise: as it is, or times each latent's prior scale."""
    noise_groups: str = "all"
    """Latent groups that get noise in total, counted from 0, the coarsest: 3, 0:5 (without 5), 16x16, all, or several
    with commas."""
    noise_by_group: bool = True
    """Also add noise to each group alone and to each resolution alone, with one more decoder pass for each of them."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        check_settings(self)
        check_variances(self.noise_variances)
        if len(set(self.noise_units)) < len(self.noise_units):
            raise InputError(f"noise_units are {', '.join(self.noise_units)}; name each once.")
        if self.noise_images and not self.noise_units:
            raise InputError(
                "noise_units is empty; name raw or prior_scale, or leave the noise out (--noise_images 0)."
            )
        if self.mixture_batch == 1:
            raise InputError("mixture_batch is 1; it must be 2 or more, or 0 to leave out that mutual information.")

    def check_enough(self, images: int) -> None:
        """Refuse, before any work, too few images for these settings (raises InputError)."""
        if images < 2:
            raise InputError("there is 1 image to evaluate on, but a variance over images needs 2; evaluate on more.")
        if images < self.mixture_batch:
            raise InputError(
                f"{images} images cannot fill a mixture of {self.mixture_batch}; evaluate on more, or lower "
                "mixture_batch."
            )


@dataclass(frozen=True)
class Task:
    """What every section gets."""

    model: LatentModel
    """On the world's device."""
    before: LatentModel | None
    """The model before fine-tuning, on the same device; None: unknown, or not wanted."""
    measuring: Measuring
    settings: SectionSettings


Section = Callable[[Task], Findings]


def measure_sections(task: Task) -> Findings:
    """All sections in their order. Every process must call this, and gets the same.

    A section that cannot be measured on this model is left out, and a note says why.

    Raises:
        InputError: too few images, before anything is measured.
    """
    task.settings.check_enough(task.measuring.count())
    findings = Findings()
    for section in SECTIONS:
        try:
            found = section(task)
        except UnmeasurableError as error:
            found = Findings(notes=[f"Left out: {error}"])
        findings = findings.and_also(found)
    return findings


def passes_section(task: Task) -> Findings:
    """Everything that looks at one posterior pass over each image, and eq. 5 on as many samples."""
    model, measuring, settings = task.model, task.measuring, task.settings
    rates = RatesReader(model, measuring.count(), settings.content_dimensions)
    activity, recovery = ActivityReader(model), RecoveryReader(model, task.before)
    read_passes(
        model,
        measuring.batches("posterior passes"),
        [rates, activity, recovery],
        seed=measuring.seed,
        world=measuring.world,
        reencoding=True,
    )
    found = rates.findings().and_also(activity.findings(settings.active_threshold))
    return found.and_also(measure_information_from_samples(model, measuring, task.before)).and_also(recovery.findings())


def mixtures_section(task: Task) -> Findings:
    """Mutual information under the data."""
    settings = task.settings
    return measure_mutual_information(
        task.model,
        task.measuring,
        mixture_batch=settings.mixture_batch,
        mixture_images=settings.mixture_images,
    )


def noise_section(task: Task) -> Findings:
    """The noise response."""
    settings = task.settings
    return measure_noise(
        task.model,
        task.measuring,
        variances=settings.noise_variances,
        units=settings.noise_units,
        images=settings.noise_images,
        groups=parse_groups(settings.noise_groups, task.model.resolutions),
        by_group=settings.noise_by_group,
    )


def importance_section(task: Task) -> Findings:
    """The importance-weighted bound and the distance from the true posterior."""
    settings = task.settings
    return measure_importance(
        task.model,
        task.measuring,
        images=settings.importance_images,
        draws=settings.importance_draws,
        gap_images=settings.gap_images,
    )


def jacobian_section(task: Task) -> Findings:
    """The decoder's local geometry."""
    settings = task.settings
    return measure_bi_lipschitz(
        task.model,
        task.measuring,
        images=settings.jacobian_images,
        values=settings.jacobian_values,
        tolerance=settings.jacobian_tolerance,
    )


SECTIONS: tuple[Section, ...] = (
    passes_section,
    mixtures_section,
    noise_section,
    importance_section,
    jacobian_section,
)
