"""`noise`: how far images move under noise in the latents, for one or more models with the same noise.

    vdvae-lr noise before=fashion LR=runs/lr --variances 0 0.3 0.4 --unit both --groups 8x8,16x16 --out noise

It prints a table, and saves its numbers as noise_response.json with the picture noise_response.png in --out. With
--animate it adds a film.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from vdvae_lr.cli.shared.film_settings import FilmSettings
from vdvae_lr.cli.shared.measured_models import ModelsOnImages, measure_models
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.evaluation.noise_section import measure_noise
from vdvae_lr.evaluation.task import NOISE_IMAGES, NOISE_VARIANCES, NoiseUnit, SectionSettings, check_variances
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.evaluation_pictures import noise_film, noise_picture
from vdvae_lr.report.comparison_table import noise_table
from vdvae_lr.setting_checks import CountOrNone


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(FilmSettings, ModelsOnImages):
    """Show and measure what noise in the latents does to the image: the visible side of posterior collapse. In a film
    the noise grows from none to the largest variance."""

    examples: CountOrNone = NOISE_IMAGES
    """Measure on the first so many images only; 0: all of them."""
    variances: tuple[float, ...] = NOISE_VARIANCES
    """Variances of the noise; 0: the clean reconstruction."""
    unit: Literal["raw", "prior_scale", "both"] = "raw"
    """raw: noise in the latents' own scale; prior_scale: noise multiplied by each latent's σ_p; both: one, then the
    other."""
    groups: str = "all"
    """Latent groups that get noise, from 0, the coarsest: 3, 0:5 (without 5), 16x16, all, or several with commas."""
    by_group: bool = False
    """Also measure noise in each group alone and in each resolution alone, with one more decoder pass for each."""
    differences: bool = False
    """Also show, enlarged, how far each image is from that without noise."""
    out: Path = Path("noise")
    """Folder for noise_response.json, noise_response.png and the film."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be measured (raises InputError)."""
        super().__post_init__()
        check_variances(self.variances, "variances")
        if self.animate and not (self.images and max(self.variances)):
            raise InputError("a film needs images and noise; give --images 1 or more, and a variance above 0.")

    @property
    def units(self) -> tuple[NoiseUnit, ...]:
        """The chosen units."""
        return ("raw", "prior_scale") if self.unit == "both" else (self.unit,)

    def section_settings(self, images: int, resolutions: tuple[int, ...]) -> SectionSettings:
        """The same choices by the names that `evaluate` has for them (raises InputError for unknown groups)."""
        parse_groups(self.groups, resolutions)
        return SectionSettings(
            noise_images=self.examples or images,
            noise_variances=self.variances,
            noise_units=self.units,
            noise_groups=self.groups,
            noise_by_group=self.by_group,
        )


def run(settings: NoiseSettings) -> None:
    """Measure, print and save (raises InputError if models, data, groups or the folder cannot be used)."""

    film = settings.film_beside(settings.out / "noise_response.png")

    def draw(models: Mapping[str, PretrainedModel], pixels: Tensor) -> dict[str, Image.Image]:
        groups = parse_groups(settings.groups, next(iter(models.values())).resolutions)
        units, seed, differences = settings.units, settings.seed, settings.differences
        common: dict[str, Any] = {"units": units, "seed": seed, "groups": groups, "differences": differences}
        if film is not None:
            most = max(settings.variances)
            settings.write_film(film, noise_film(models, pixels, most=most, count=settings.frames, **common))
        return {"noise_response.png": noise_picture(models, pixels, variances=settings.variances, **common)}

    measure_models(settings, measure_noise, noise_table, draw, "noise_response.json")
