"""`vdvae-lr interpolate`: from one image file to another through the latents."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro
from PIL import Image

from vdvae_lr.cli.shared.film_settings import FilmSettings
from vdvae_lr.cli.shared.picture_output import OwnImagesSettings, Studio, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.films import film_frame
from vdvae_lr.pictures.image_files import find_image_files, pictures_of
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.interpolating import InterpolationPath, check_interpolation, interpolate
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.setting_checks import AtOnce


@dataclass(frozen=True, kw_only=True)
class InterpolateSettings(FilmSettings, OwnImagesSettings):
    """Interpolate between two images: a row of pictures for each choice of groups. A film shows all rows at once."""

    COMMAND: ClassVar[str] = "interpolate"
    NAMES: ClassVar[str] = r"(-groups-.*-at-[\d.e-]+)?"

    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST_FILE")]
    """Image file at which the rows begin."""
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND_FILE")]
    """Image file at which the rows end."""
    steps: AtOnce = 9
    """Number of pictures in a row, with the reconstructions at both ends."""
    path: InterpolationPath = "spherical"
    """Path between the latents of each group: an arc (spherical) or a line (linear)."""
    groups: tuple[str, ...] = ("all",)
    """Groups that move, while the others keep the first image's latents: 3, 0:5, 16x16 or all, with commas. Several
    choices, with spaces: a row for each."""
    coordinates: Coordinates = "standardised"
    """What is interpolated, and what groups that do not move keep. standardised: (z - prior mean) / prior scale, so
    that finer groups follow the coarser; latents: z itself (linear only)."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be used (raises InputError)."""
        super().__post_init__()
        check_interpolation(self.steps, self.path, self.coordinates)
        if not self.groups:
            raise InputError("groups has no value; give a choice of groups, such as all.")


def run(settings: InterpolateSettings) -> None:
    """Interpolate (raises InputError if the model, images, groups or a place cannot be used)."""
    paths = find_image_files((settings.first, settings.second))
    if len(paths) != 2:
        raise InputError(f"{len(paths)} images were found where two are wanted; name two image files.")
    make_pictures(settings, partial(_interpolate, settings, paths), paths)


def _interpolate(settings: InterpolateSettings, paths: list[Path], model: PretrainedModel, studio: Studio) -> None:
    for groups in settings.groups:
        parse_groups(groups, model.resolutions)
    studio.begin(model, len(settings.groups), settings.steps + 2)
    first, second = pictures_of(model, paths)
    chosen = settings.chosen("path", "coordinates", "latents", "seed", "batch")
    fractions = [f"{fraction:.3g}" for fraction in np.linspace(0, 1, settings.steps)]
    film: list[Pictures] = []
    what = f"decoding {settings.steps} steps" + (f" and {settings.frames} of the film" if settings.animate else "")
    for groups in studio.track(settings.groups, len(settings.groups), what):
        between = interpolate(model, first, second, groups=groups, steps=settings.steps, **chosen)
        if settings.animate:
            film.append(interpolate(model, first, second, groups=groups, steps=settings.frames, **chosen))
        words = groups.replace(" ", "").replace(":", "to").replace(",", "+")  # letters that every file system takes
        single = len(settings.groups) == 1
        names = ["" if single else f"groups-{words}-at-{fraction}" for fraction in fractions]
        studio.add(np.concatenate([first[None], between, second[None]]), [None, *names, None])
    labels = [f"groups {groups}" for groups in settings.groups]
    kind = "standardised latents" if settings.coordinates == "standardised" else "latents as they are"
    title = f"{settings.path} interpolation of {kind}, posterior {settings.latents}"

    def frame(number: int) -> Image.Image:
        at = f"{settings.path}, {number / (settings.frames - 1):.2f}"
        return film_frame([np.stack([row[number] for row in film])], [""], labels if len(labels) > 1 else (), at)

    studio.finish(lambda rows: picture_grid(rows, labels, ["image", *fractions, "image"], title), frame)
