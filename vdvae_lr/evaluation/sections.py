"""All measurements of one model, section by section: what `evaluate` runs, and on how many images each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.activity import ACTIVE_VARIANCE, measure_active_units
from vdvae_lr.evaluation.document import InputRates
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.importance import measure_importance
from vdvae_lr.evaluation.information_section import check_information, measure_information
from vdvae_lr.evaluation.jacobian.section import measure_bi_lipschitz
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.noise_response import NoiseUnit, check_variances
from vdvae_lr.evaluation.noise_section import NOISE_IMAGES, NOISE_VARIANCES, measure_noise
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.evaluation.rates import measure_rates
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.setting_checks import Between, Count, CountOrNone, check_settings


@dataclass(frozen=True)
class SectionSettings:
    """How much of each section is measured; a count above the images there are means all of them."""

    content_dimensions: CountOrNone = 0
    """Also state bound, distortion and rate on this many dimensions an image: 784 for 28x28 images padded to 32x32; 0:
    do not."""
    active_threshold: Annotated[float, Between(0, above=True)] = ACTIVE_VARIANCE
    """Least variance of an active unit's posterior mean over the images, as it is and in units of the prior's."""
    mixture_batch: CountOrNone = 32
    """Images in a mixture for the mutual information within batches, whose ceiling is their number's logarithm; 0:
    leave it out."""
    mixture_images: CountOrNone = 32
    """Images whose latents are asked for in the mixture over all images that are measured, each at the cost of the
    posterior networks for every image; 0: leave it out."""
    importance_images: CountOrNone = 50
    """Images for the importance-weighted bound, a pass for each of their draws; 0: leave it out."""
    importance_draws: Count = 64
    """Draws of the latents an image, for importance weights."""
    gap_images: CountOrNone = 4
    """Images for the distance from the true posterior by group, all draws anew for each group; 0: leave it out."""
    jacobian_images: CountOrNone = 4
    """Images, and samples, at which the decoder's Jacobian is measured; 0: leave it out."""
    jacobian_values: Count = 8
    """Singular values a group, from the largest down."""
    jacobian_tolerance: Annotated[float, Between(0, above=True)] = 1e-3
    """Error of a singular value, as a share of the largest, at which it counts as found."""
    noise_images: CountOrNone = NOISE_IMAGES
    """Images for the noise response, some passes for each group; 0: leave it out."""
    noise_variances: tuple[float, ...] = NOISE_VARIANCES
    """Variances of the noise added to the latents."""
    noise_units: tuple[NoiseUnit, ...] = ("raw", "prior_scale")
    """Units of that noise: as it is, or times each latent's prior scale."""

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

    def check_images(self, measuring: Measuring) -> None:
        """Refuse, before any work, a set too small for what is asked of it (raises InputError)."""
        if measuring.count() < 2:
            raise InputError("there is 1 image to evaluate on, but a variance over images needs 2; evaluate on more.")
        check_information(measuring, self.mixture_batch, self.mixture_images)


@dataclass(frozen=True)
class Findings:
    """What sections found; the parts of an `Evaluation` that come from measuring."""

    quantities: Sequence[Quantity] = ()
    inputs: InputRates | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def and_also(self, other: "Findings") -> "Findings":
        """Those of both."""
        return Findings(
            (*self.quantities, *other.quantities),
            self.inputs or other.inputs,
            {**self.details, **other.details},
            (*self.notes, *other.notes),
        )

    def without_value(self) -> list[str]:
        """A sentence on the quantities that are NaN somewhere, if there are any; infinity is a value."""
        found = []
        for quantity in self.quantities:
            groups = [group for group, part in enumerate(quantity.groups) if math.isnan(part.value)]
            if groups:
                found.append(f"{quantity.key} ({named_groups(groups)})")
            elif quantity.total is not None and math.isnan(quantity.total.value):
                found.append(f"{quantity.key} (in total)")
        return [f"No number, and null in the JSON file: {'; '.join(found)}."] if found else []


@dataclass(frozen=True)
class Task:
    """What every section gets."""

    model: LatentModel
    """On the world's device."""
    before: LatentModel | None
    """As it was before fine-tuning, on the same device; None: unknown, or not wanted."""
    measuring: Measuring
    settings: SectionSettings


def measure_sections(task: Task) -> Findings:
    """All sections, in order; every process must call this, and gets the same.

    A section that this model does not allow is left out, and a note says why.

    Raises:
        InputError: too few images, before anything is measured.
    """
    task.settings.check_images(task.measuring)
    findings = Findings()
    for section in SECTIONS:
        try:
            found = section(task)
        except UnmeasurableError as error:
            found = Findings(notes=[f"Left out: {error}"])
        findings = findings.and_also(found)
    return findings


def _rates(task: Task) -> Findings:
    found, inputs = measure_rates(task.model, task.measuring, content_dimensions=task.settings.content_dimensions)
    return Findings(found, inputs)


def _activity(task: Task) -> Findings:
    found, notes = measure_active_units(task.model, task.measuring, threshold=task.settings.active_threshold)
    return Findings(found, notes=notes)


def _information(task: Task) -> Findings:
    settings = task.settings
    return Findings(
        measure_information(
            task.model,
            task.measuring,
            before=task.before,
            mixture_batch=settings.mixture_batch,
            mixture_images=settings.mixture_images,
        )
    )


def _importance(task: Task) -> Findings:
    settings = task.settings
    found, notes = measure_importance(
        task.model,
        task.measuring,
        images=settings.importance_images,
        draws=settings.importance_draws,
        gap_images=settings.gap_images,
    )
    return Findings(found, notes=notes)


def _bi_lipschitz(task: Task) -> Findings:
    settings = task.settings
    if not settings.jacobian_images:
        return Findings()
    found, details, notes = measure_bi_lipschitz(
        task.model,
        task.measuring,
        images=settings.jacobian_images,
        values=settings.jacobian_values,
        tolerance=settings.jacobian_tolerance,
    )
    return Findings(found, None, details, notes)


def _noise(task: Task) -> Findings:
    settings = task.settings
    if not settings.noise_images:
        return Findings()
    return Findings(
        measure_noise(
            task.model,
            task.measuring,
            variances=settings.noise_variances,
            units=settings.noise_units,
            images=settings.noise_images,
        )
    )


SECTIONS: tuple[Callable[[Task], Findings], ...] = (_rates, _activity, _information, _noise, _importance, _bi_lipschitz)
