"""`vdvae-lr swap`: the coarse latent groups of one image file with the fine groups of another.

Shapes: N images, C channels (1 or 3), H W resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro
from PIL import Image

from vdvae_lr.cli.shared.own_images import OwnImagesSettings, check_image_files, first_groups_header, read_pictures
from vdvae_lr.cli.shared.picture_output import Studio, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import first_groups_by_resolution, parse_first_groups
from vdvae_lr.pictures.image_files import find_image_files
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.picture_grid import check_grid_fits, picture_grid
from vdvae_lr.pictures.swapping import swap_rows


@dataclass(frozen=True, kw_only=True)
class SwapSettings(OwnImagesSettings):
    """Mix latents of images: two images over the number k of coarse groups, or all pairs of several images at one k."""

    COMMAND: ClassVar[str] = "swap"
    NAMES: ClassVar[str] = r"-first-\d+-of-image-\d+-others-of-\d+"

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE_OR_FOLDER")]
    """Two image files or more, or folders of them."""
    first_groups: str = ""
    """How many groups are coarse: numbers, resolutions (16x16: down to the last group there) or all, with commas.
    Empty: for two images the end of every resolution, for more the one in the middle."""
    coordinates: Coordinates = "standardised"
    """What the fine groups keep. standardised: (z - prior mean) / prior scale, so that they follow the coarse groups;
    latents: z itself."""


def run(settings: SwapSettings) -> None:
    """Swap; raises InputError for a model, images, groups or a place that cannot be used."""
    paths = find_image_files(settings.images)
    if len(paths) < 2:
        raise InputError("there is one image to swap latents with; name two image files or more.")
    make_pictures(settings, lambda studio: _swap(settings, studio, paths), paths)


def _swap(settings: SwapSettings, studio: Studio, paths: Sequence[Path]) -> None:
    counts = _counts(settings, studio.resolutions, len(paths))
    across = len(counts) + 2 if len(paths) == 2 else len(paths) + 1
    if studio.writer.wants_grid:
        check_grid_fits(len(paths) + 1, across, studio.model.config.image_size)
    check_image_files(settings, studio, paths)
    pictures = read_pictures(studio, paths)
    mixed: list[Pictures] = []  # (N, N, H, W, C) for each number of coarse groups
    for count in studio.tracker(counts, len(counts), f"swapping latents of {len(paths)} images"):
        rows = swap_rows(
            studio.model,
            pictures,
            first_groups=count,
            coordinates=settings.coordinates,
            latents=settings.latents,
            seed=settings.seed,
            batch=settings.batch,
        )
        kept = []
        for i, row in enumerate(rows):
            studio.writer.singles(row, [f"first-{count}-of-image-{i}-others-of-{j}" for j in range(len(row))])
            if studio.writer.wants_grid:
                kept.append(row)
        if kept:
            mixed.append(np.stack(kept))
    if studio.writer.wants_grid:
        names = [path.name for path in paths]
        if len(paths) == 2:
            headers = [first_groups_header(count, studio.resolutions) for count in counts]
            studio.writer.grid(_over_counts(pictures, mixed, names, headers))
        else:
            studio.writer.grid(_over_pairs(pictures, mixed[0], names, counts[0]))


def _counts(settings: SwapSettings, resolutions: Sequence[int], images: int) -> Sequence[int]:
    by_resolution = first_groups_by_resolution(resolutions)
    if settings.first_groups:
        counts = parse_first_groups(settings.first_groups, resolutions)
        if images > 2 and len(counts) > 1:
            raise InputError(
                f"{images} images make a grid of all pairs for one number of coarse groups, not for {len(counts)}; "
                "give one to --first_groups, or name two images."
            )
        return counts
    return (0, *by_resolution) if images == 2 else (by_resolution[(len(by_resolution) - 1) // 2],)


def _over_counts(
    pictures: Pictures, mixed: Sequence[Pictures], names: Sequence[str], headers: Sequence[str]
) -> Image.Image:
    """Two rows, the coarse groups being either image's, over their number."""
    rows = [np.stack([pictures[a], *(pairs[a, 1 - a] for pairs in mixed), pictures[1 - a]]) for a in range(2)]
    title = "first groups of image A, the others of image B"
    return picture_grid(rows, [f"A = {name}" for name in names], ["image A", *headers, "image B"], title)


def _over_pairs(pictures: Pictures, pairs: Pictures, names: Sequence[str], count: int) -> Image.Image:
    """A row for each image's coarse groups, a column for each image's fine ones."""
    blank = np.full_like(pictures[:1], 255)
    rows = [np.concatenate([blank, pictures])]
    rows += [np.concatenate([pictures[i : i + 1], row]) for i, row in enumerate(pairs)]
    title = f"first {count} groups of the image at the left, the others of the image above"
    return picture_grid(rows, ["", *names], title=title)
