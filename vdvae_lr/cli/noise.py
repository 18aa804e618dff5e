"""`noise`: how far images move under noise in the latents, for one or more models with the same noise.

    vdvae-lr noise before=fashion LR=runs/lr --variances 0 0.3 0.4 --unit both --groups 8x8,16x16 --out noise

prints a table and leaves its numbers as noise_response.json, with the picture noise_response.png, in --out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdvae_lr.cli.shared.held_out_images import first_pixels
from vdvae_lr.cli.shared.measured_models import ModelsOnImages, evaluate_models, find_models, named_sources
from vdvae_lr.cli.shared.output_folder import check_writable
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.evaluation.document import write_evaluations
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.evaluation.noise_response import measure_noise
from vdvae_lr.evaluation.task import NOISE_IMAGES, NOISE_VARIANCES, NoiseUnit, SectionSettings, check_variances
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.noise_pictures import noise_picture
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.report.comparison_table import noise_table
from vdvae_lr.setting_checks import CountOrNone


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(ModelsOnImages):
    """Show and measure what noise in the latents does to the image: the visible side of posterior collapse."""

    examples: CountOrNone = NOISE_IMAGES
    """Measure on the first so many images only; 0: all of them."""
    variances: tuple[float, ...] = NOISE_VARIANCES
    """Variances of the noise; 0: the clean reconstruction."""
    unit: Literal["raw", "prior_scale", "both"] = "raw"
    """raw: noise in the latents' own scale; prior_scale: also multiplied by each latent's σ_p; both: one, then the
    other."""
    groups: str = "all"
    """Latent groups that get noise, from 0, the coarsest: 3, 0:5 (without 5), 16x16, all, or several with commas."""
    by_group: bool = False
    """Also measure noise in each group alone and in each resolution alone: a decoder pass more for each of them."""
    out: Path = Path("noise")
    """Folder for noise_response.json and noise_response.png."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        super().__post_init__()
        check_variances(self.variances, "variances")

    @property
    def units(self) -> tuple[NoiseUnit, ...]:
        """The chosen units."""
        return ("raw", "prior_scale") if self.unit == "both" else (self.unit,)

    def sections(self, images: int) -> SectionSettings:
        """The same choices by the names of `evaluate`, for a split of so many images."""
        return SectionSettings(
            noise_images=self.examples or images,
            noise_variances=self.variances,
            noise_units=self.units,
            noise_groups=self.groups,
            noise_by_group=self.by_group,
        )


def run(settings: NoiseSettings) -> None:
    """Measure, print and save; raises InputError for models, data, groups or a folder that cannot be used."""
    named_sources(settings.models)
    with joined_world(settings.device) as world, float32_convolutions():
        _noise(settings, world)


def _noise(settings: NoiseSettings, world: World) -> None:
    models = find_models(settings, named_sources(settings.models), world)
    groups = parse_groups(settings.groups, next(iter(models.values())).resolutions)
    console = plain_console(world.is_main)
    found = settings.find(models, console)
    check_writable(settings.out, world)
    track = ConsoleTracker(console)
    sections = settings.sections(len(found.source))
    evaluations = evaluate_models(settings, models, found, sections, measure_noise, world, track)
    if not world.is_main:
        return
    console.print(noise_table(evaluations))
    write_evaluations(evaluations, settings.out / "noise_response.json")
    if settings.images:
        picture = noise_picture(
            models,
            first_pixels(found.source, settings.images),
            variances=settings.variances,
            units=settings.units,
            seed=settings.seed,
            groups=groups,
        )
        save_png(picture, settings.out / "noise_response.png")
    console.print(f"saved in {settings.out}")
