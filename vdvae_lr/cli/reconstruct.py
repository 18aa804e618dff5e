"""`vdvae-lr reconstruct`: own image files beside what the model makes of the first k groups of their latents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro

from vdvae_lr.cli.shared.picture_output import OwnImagesSettings, Studio, counted, first_groups_header, make_pictures
from vdvae_lr.evaluation.group_choice import first_groups_by_resolution, parse_first_groups
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.image_files import find_image_files, pictures_of
from vdvae_lr.pictures.images import in_batches
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.pictures.reconstructing import reconstruct

_LONGEST_NAME = 80  # characters of an image file's name that a single picture's name repeats


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(OwnImagesSettings):
    """Reconstruct image files: the posterior's latents in the first k groups, the prior's in the others."""

    COMMAND: ClassVar[str] = "reconstruct"
    NAMES: ClassVar[str] = r"-.*-first-\d+"

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE_OR_FOLDER")]
    """Image files (PNG, JPEG, WebP, BMP, TIFF), or folders of them. Each image is cut to its central square and resized
    if needed."""
    first_groups: str = ""
    """Values of k, a column for each: numbers, resolutions (16x16: down to the last group there) or all, with commas.
    Empty: the end of every resolution."""
    temperature: str = "0.1"
    """Temperature of the groups from the prior, as in the published figure; 0: the prior's mean. Written as for
    `sample`."""


def run(settings: ReconstructSettings) -> None:
    """Reconstruct (raises InputError if the model, images, groups or a place cannot be used)."""
    paths = find_image_files(settings.images)
    make_pictures(settings, partial(_reconstruct, settings, paths), paths)


def _reconstruct(settings: ReconstructSettings, paths: Sequence[Path], model: PretrainedModel, studio: Studio) -> None:
    resolutions = model.resolutions
    kept = first_groups_by_resolution(resolutions)
    if settings.first_groups:
        kept = parse_first_groups(settings.first_groups, resolutions)
    temperature = group_temperatures(settings.temperature, resolutions)
    studio.begin(model, len(paths), 1 + len(kept))
    chosen = settings.chosen("latents", "seed", "batch") | {"temperature": temperature}
    parts = in_batches(range(len(paths)), settings.batch)
    what = f"reconstructing {counted(len(paths), 'image')}"
    for numbers in studio.track(parts, math.ceil(len(paths) / settings.batch), what):
        pictures = pictures_of(model, [paths[number] for number in numbers])
        made = [reconstruct(model, pictures, first_groups=count, examples=numbers, **chosen) for count in kept]
        for number, row in zip(numbers, np.stack([pictures, *made], axis=1), strict=True):
            name = paths[number].stem[:_LONGEST_NAME]
            studio.add(row, [None, *(f"{name}-first-{count}" for count in kept)])
    labels = [path.name for path in paths]
    headers = ["image", *(first_groups_header(count, resolutions) for count in kept)]
    rest = "prior mean" if settings.temperature in ("0", "0.0") else f"prior at temperature {settings.temperature}"
    title = f"first groups: posterior {settings.latents}; other groups: {rest}"
    studio.finish(lambda rows: picture_grid(rows, labels, headers, title))
