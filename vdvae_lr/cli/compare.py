"""`compare`: several models of one architecture, measured on the same held-out images with the same noise.

    vdvae-lr compare before=fashion LR=runs/lr no-LR=runs/plain --split test --out comparison

It prints a table, and saves its numbers as comparison.json with reconstructions.png, samples.png and
noise_response.png in --out.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from vdvae_lr.cli.shared.measured_models import ModelsOnImages, measure_models
from vdvae_lr.cli.shared.progress import plain_console
from vdvae_lr.cli.shared.quality_meter import QualityMeter, quality_meter
from vdvae_lr.evaluation.quality.scores import check_installed
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import Section, SectionSettings, Task
from vdvae_lr.pictures.evaluation_pictures import comparison_pictures
from vdvae_lr.pictures.picture_quality import WantedSets
from vdvae_lr.report.comparison_table import comparison_table
from vdvae_lr.setting_checks import CountOrNone, PathText

COMPARISON_NAME = "comparison.json"
quick_sections = partial(
    SectionSettings,
    mixture_batch=0,
    mixture_images=0,
    importance_images=0,
    gap_images=0,
    jacobian_images=0,
    noise_variances=(0.3, 0.4),
    noise_by_group=False,
)
"""What `compare` measures by default: what takes only minutes, and nothing for each group alone."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings(ModelsOnImages):
    """Compare models on held-out images: bound, Latent Reconstruction, information, active latents, noise response."""

    out: Path = Path("comparison")
    """Folder for comparison.json and the pictures."""
    quality_samples: CountOrNone = 0
    """Also measure FID, KID, precision and recall, of so many samples and reconstructions, against the same images; 0:
    do not. `vdvae-lr quality` has more settings."""
    extractor: PathText = ""
    """File of the weights of the network behind FID; empty: the published one, downloaded at first use."""
    sections: tyro.conf.OmitArgPrefixes[SectionSettings] = dataclasses.field(default_factory=quick_sections)

    def section_settings(self, images: int, resolutions: tuple[int, ...]) -> SectionSettings:
        """What is measured."""
        return self.sections


def run(settings: CompareSettings) -> None:
    """Measure, print and save (raises InputError if models, data or the folder cannot be used)."""
    if settings.quality_samples:
        check_installed()
    measure = _with_quality(settings) if settings.quality_samples else measure_sections
    draw = partial(comparison_pictures, seed=settings.seed)
    measure_models(settings, measure, comparison_table, draw, COMPARISON_NAME)


def _with_quality(settings: CompareSettings) -> Section:
    """All sections, and the quality of pictures. What it needs is loaded once, before the first model is measured."""
    wanted = WantedSets(("samples", "reconstructions"), settings.quality_samples, ("1.0",), None)
    meter: QualityMeter | None = None

    def measure(task: Task) -> Findings:
        nonlocal meter
        if meter is None:
            wanted.check(task.measuring.count())
            console = plain_console(task.measuring.world.is_main)
            meter = quality_meter(settings.extractor, wanted, task.measuring, console)
        return measure_sections(task).and_also(meter.measure(task.model, task.measuring))

    return measure
