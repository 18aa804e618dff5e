"""`vdvae-lr reconstruct`: own image files beside what the model makes of the first k groups of their latents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro

from vdvae_lr.cli.shared.own_images import OwnImagesSettings, check_image_files, first_groups_header, read_pictures
from vdvae_lr.cli.shared.picture_output import Studio, counted, make_pictures
from vdvae_lr.evaluation.group_choice import first_groups_by_resolution, parse_first_groups
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.image_files import find_image_files
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import chunks
from vdvae_lr.pictures.picture_grid import check_grid_fits, picture_grid
from vdvae_lr.pictures.reconstructing import reconstruct

_LONGEST_NAME = 80  # of a source file's name in that of a single picture


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(OwnImagesSettings):
    """Reconstruct image files: the posterior's latents in the first k groups, the prior's in the others."""

    COMMAND: ClassVar[str] = "reconstruct"
    NAMES: ClassVar[str] = r"-.*-first-\d+"

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE_OR_FOLDER")]
    """Image files (PNG, JPEG, WebP, BMP, TIFF), or folders of them. Each is cut to its central square and resized where
    that is needed."""
    first_groups: str = ""
    """Values of k, a column each: numbers, resolutions (16x16: down to the last group there) or all, with commas.
    Empty: the end of every resolution."""
    temperature: str = "0.1"
    """Of the groups from the prior, as in the published figure; 0: the prior's mean. Words as `sample` takes them."""


def run(settings: ReconstructSettings) -> None:
    """Reconstruct; raises InputError for a model, images, groups or a place that cannot be used."""
    paths = find_image_files(settings.images)
    make_pictures(settings, lambda studio: _reconstruct(settings, studio, paths), paths)


def _reconstruct(settings: ReconstructSettings, studio: Studio, paths: Sequence[Path]) -> None:
    kept = first_groups_by_resolution(studio.resolutions)
    if settings.first_groups:
        kept = parse_first_groups(settings.first_groups, studio.resolutions)
    group_temperatures(settings.temperature, studio.resolutions)
    if studio.writer.wants_grid:
        check_grid_fits(len(paths), 1 + len(kept), studio.model.config.image_size)
    check_image_files(settings, studio, paths)
    parts = chunks(len(paths), settings.batch)
    rows: list[Pictures] = []
    what = f"reconstructing {counted(len(paths), 'image')}"
    for part in studio.tracker(parts, math.ceil(len(paths) / settings.batch), what):
        files = paths[part.start : part.stop]
        made = _from_first_groups(settings, studio, read_pictures(studio, files), kept, part)
        _write_singles(studio, files, made, kept)
        if studio.writer.wants_grid:
            rows += list(made)
    if studio.writer.wants_grid:
        labels = [path.name for path in paths]
        headers = ["image", *(first_groups_header(count, studio.resolutions) for count in kept)]
        studio.writer.grid(picture_grid(rows, labels, headers, _title(settings)))


def _from_first_groups(
    settings: ReconstructSettings, studio: Studio, pictures: Pictures, kept: Sequence[int], examples: range
) -> Pictures:
    """The images themselves, then from the first k groups for each k: (B, 1 + K, H, W, C)."""
    made = [
        reconstruct(
            studio.model,
            pictures,
            first_groups=count,
            latents=settings.latents,
            temperature=settings.temperature,
            seed=settings.seed,
            batch=settings.batch,
            examples=examples,
        )
        for count in kept
    ]
    return np.stack([pictures, *made], axis=1)


def _write_singles(studio: Studio, files: Sequence[Path], made: Pictures, kept: Sequence[int]) -> None:
    for path, pictures in zip(files, made, strict=True):
        name = path.stem[:_LONGEST_NAME]
        studio.writer.singles(pictures[1:], [f"{name}-first-{count}" for count in kept])


def _title(settings: ReconstructSettings) -> str:
    rest = "prior mean" if settings.temperature in ("0", "0.0") else f"prior at temperature {settings.temperature}"
    return f"first groups: posterior {settings.latents}; other groups: {rest}"
