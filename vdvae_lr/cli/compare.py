"""`compare`: several models of one architecture, measured on the same held-out images with the same noise.

    vdvae-lr compare before=fashion LR=runs/lr no-LR=runs/plain --split test --out comparison

prints a table and leaves its numbers as comparison.json, with reconstructions.png, samples.png and noise_response.png,
in --out.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

from vdvae_lr.cli.shared.held_out_images import first_pixels
from vdvae_lr.cli.shared.measured_models import ModelsOnImages, evaluate_models, find_models, named_sources
from vdvae_lr.cli.shared.output_folder import check_writable
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.evaluation.document import write_evaluations
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import SectionSettings
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.comparison_pictures import comparison_pictures
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.report.comparison_table import comparison_table

COMPARISON_NAME = "comparison.json"


def quick_sections() -> SectionSettings:
    """What `compare` measures unless it is told otherwise: what takes minutes, and nothing by group alone."""
    return SectionSettings(
        mixture_batch=0,
        mixture_images=0,
        importance_images=0,
        gap_images=0,
        jacobian_images=0,
        noise_variances=(0.3, 0.4),
        noise_by_group=False,
    )


@dataclass(frozen=True, kw_only=True)
class CompareSettings(ModelsOnImages):
    """Compare models on held-out images: bound, Latent Reconstruction, information, active latents, noise response."""

    out: Path = Path("comparison")
    """Folder for comparison.json and the pictures."""
    sections: tyro.conf.OmitArgPrefixes[SectionSettings] = dataclasses.field(default_factory=quick_sections)


def run(settings: CompareSettings) -> None:
    """Measure, print and save; raises InputError for models, data or a folder that cannot be used."""
    named_sources(settings.models)
    with joined_world(settings.device) as world, float32_convolutions():
        _compare(settings, world)


def _compare(settings: CompareSettings, world: World) -> None:
    models = find_models(settings, named_sources(settings.models), world)
    console = plain_console(world.is_main)
    found = settings.find(models, console)
    check_writable(settings.out, world)
    track = ConsoleTracker(console)
    evaluations = evaluate_models(settings, models, found, settings.sections, measure_sections, world, track)
    if not world.is_main:
        return
    console.print(comparison_table(evaluations))
    for name, evaluation in evaluations.items():
        for note in evaluation.notes:
            console.print(f"{name}: {note}", soft_wrap=True)
    write_evaluations(evaluations, settings.out / COMPARISON_NAME)
    if settings.images:
        pixels = first_pixels(found.source, settings.images)
        for name, picture in comparison_pictures(models, pixels, settings.seed).items():
            save_png(picture, settings.out / name)
    console.print(f"saved in {settings.out}")
