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
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import SectionSettings
from vdvae_lr.pictures.evaluation_pictures import comparison_pictures
from vdvae_lr.report.comparison_table import comparison_table

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
    sections: tyro.conf.OmitArgPrefixes[SectionSettings] = dataclasses.field(default_factory=quick_sections)

    def section_settings(self, images: int, resolutions: tuple[int, ...]) -> SectionSettings:
        """What is measured."""
        return self.sections


def run(settings: CompareSettings) -> None:
    """Measure, print and save (raises InputError if models, data or the folder cannot be used)."""
    draw = partial(comparison_pictures, seed=settings.seed)
    measure_models(settings, measure_sections, comparison_table, draw, COMPARISON_NAME)
