"""All measurements of one model, section by section."""

from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.activity import ActivityReader
from vdvae_lr.evaluation.batches import read_passes
from vdvae_lr.evaluation.bound import RatesReader
from vdvae_lr.evaluation.fresh_reader import measure_fresh_reader
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.evaluation.importance import measure_importance
from vdvae_lr.evaluation.information import RecoveryReader, measure_information_from_samples
from vdvae_lr.evaluation.jacobian.section import measure_bi_lipschitz
from vdvae_lr.evaluation.mutual_information import measure_mutual_information
from vdvae_lr.evaluation.noise_section import measure_noise
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.task import Section, Task


def measure_passes(task: Task) -> Findings:
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
    return found.and_also(measure_information_from_samples(task)).and_also(recovery.findings())


SECTIONS: tuple[Section, ...] = (
    measure_passes,
    measure_mutual_information,
    measure_fresh_reader,
    measure_noise,
    measure_importance,
    measure_bi_lipschitz,
)


def measure_sections(task: Task) -> Findings:
    """All sections in their order. Every process must call this, and gets the same.

    A section that cannot be measured on this model is left out, and a note says why.

    Raises:
        InputError: there are too few images, or the model lacks a chosen group; before anything is measured.
    """
    task.settings.check_enough(task.measuring.count())
    parse_groups(task.settings.noise_groups, task.model.resolutions)
    findings = Findings()
    for section in SECTIONS:
        try:
            found = section(task)
        except UnmeasurableError as error:
            found = Findings(notes=[f"Left out: {error}"])
        findings = findings.and_also(found)
    return findings
