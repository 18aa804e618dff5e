"""`vdvae-lr interpolate`: from one image file to another through the latents.

Shapes: S steps, C channels (1 or 3), H W resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro

from vdvae_lr.cli.shared.own_images import OwnImagesSettings, check_image_files, read_pictures
from vdvae_lr.cli.shared.picture_output import Studio, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.pictures.image_files import find_image_files
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.interpolating import InterpolationPath, check_interpolation, interpolate
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.picture_grid import check_grid_fits, picture_grid
from vdvae_lr.setting_checks import AtOnce


@dataclass(frozen=True, kw_only=True)
class InterpolateSettings(OwnImagesSettings):
    """Interpolate between two images: a row of pictures for each choice of groups."""

    COMMAND: ClassVar[str] = "interpolate"
    NAMES: ClassVar[str] = r"(-groups-.*-at-[\d.e-]+)?"

    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FIRST_FILE")]
    """Image file to begin at."""
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SECOND_FILE")]
    """Image file to end at."""
    steps: AtOnce = 9
    """Pictures of a row, with both reconstructions at its ends."""
    path: InterpolationPath = "spherical"
    """An arc between the latents of each group, or a line."""
    groups: tuple[str, ...] = ("all",)
    """Groups that move, the others staying the first image's: 3, 0:5, 16x16 or all, with commas. Several choices, with
    spaces: a row for each."""
    coordinates: Coordinates = "standardised"
    """What is interpolated, and what groups that do not move keep. standardised: (z - prior mean) / prior scale, so
    that finer groups follow the coarser; latents: z itself (linear only)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done; raises InputError."""
        super().__post_init__()
        check_interpolation(self.steps, self.path, self.coordinates)
        if not self.groups:
            raise InputError("groups has no value; give a choice of groups, such as all.")


def run(settings: InterpolateSettings) -> None:
    """Interpolate; raises InputError for a model, images, groups or a place that cannot be used."""
    paths = find_image_files((settings.first, settings.second))
    if len(paths) != 2:
        raise InputError(f"{len(paths)} images were found where two are wanted; name two image files.")
    make_pictures(settings, lambda studio: _interpolate(settings, studio, paths), paths)


def _interpolate(settings: InterpolateSettings, studio: Studio, paths: list[Path]) -> None:
    for groups in settings.groups:
        parse_groups(groups, studio.resolutions)
    if studio.writer.wants_grid:
        check_grid_fits(len(settings.groups), settings.steps + 2, studio.model.config.image_size)
    check_image_files(settings, studio, paths)
    first, second = read_pictures(studio, paths)
    rows: list[Pictures] = []  # (S, H, W, C) each
    for groups in studio.tracker(settings.groups, len(settings.groups), f"decoding {settings.steps} steps"):
        between = interpolate(
            studio.model,
            first,
            second,
            steps=settings.steps,
            path=settings.path,
            groups=groups,
            coordinates=settings.coordinates,
            latents=settings.latents,
            seed=settings.seed,
            batch=settings.batch,
        )
        studio.writer.singles(between, _names(settings, groups))
        if studio.writer.wants_grid:
            rows.append(between)
    if studio.writer.wants_grid:
        headers = ["image", *_fractions(settings), "image"]
        labels = [f"groups {groups}" for groups in settings.groups]
        what = "standardised latents" if settings.coordinates == "standardised" else "latents as they are"
        title = f"{settings.path} interpolation of {what}, posterior {settings.latents}"
        whole = [np.concatenate([first[None], between, second[None]]) for between in rows]
        studio.writer.grid(picture_grid(whole, labels, headers, title))


def _fractions(settings: InterpolateSettings) -> list[str]:
    return [f"{fraction:.3g}" for fraction in np.linspace(0, 1, settings.steps)]


def _names(settings: InterpolateSettings, groups: str) -> Sequence[str] | None:
    """Of a row's single files, where there are several rows; in letters that every file system takes."""
    if len(settings.groups) == 1:
        return None
    words = groups.replace(" ", "").replace(":", "to").replace(",", "+")
    return [f"groups-{words}-at-{fraction}" for fraction in _fractions(settings)]
