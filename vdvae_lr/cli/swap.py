"""`vdvae-lr swap`: the coarse latent groups of one image file with the fine groups of another.

Shapes: N images, K numbers of coarse groups, C channels (1 or 3), H W resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import tyro
from PIL import Image

from vdvae_lr.cli.shared.picture_output import OwnImagesSettings, Studio, first_groups_header, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import first_groups_by_resolution, parse_first_groups
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.image_files import find_image_files, pictures_of
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.pictures.swapping import swap_rows


@dataclass(frozen=True, kw_only=True)
class SwapSettings(OwnImagesSettings):
    """Mix latents of images: two images over the number k of coarse groups, or all pairs of several images at one k."""

    COMMAND: ClassVar[str] = "swap"
    NAMES: ClassVar[str] = r"-first-\d+-of-image-\d+-others-of-\d+"

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE_OR_FOLDER")]
    """Two image files or more, or folders of them."""
    first_groups: str = ""
    """Values of k: numbers, resolutions (16x16: down to the last group there) or all, with commas. Empty: the end of
    every resolution for two images, and of the one in the middle for more."""
    coordinates: Coordinates = "standardised"
    """What the fine groups keep. standardised: (z - prior mean) / prior scale, so that they follow the coarse groups;
    latents: z itself."""


def run(settings: SwapSettings) -> None:
    """Swap (raises InputError if the model, images, groups or a place cannot be used)."""
    paths = find_image_files(settings.images)
    if len(paths) < 2:
        raise InputError("there is one image to swap latents with; name two image files or more.")
    make_pictures(settings, partial(_swap, settings, paths), paths)


def _swap(settings: SwapSettings, paths: Sequence[Path], model: PretrainedModel, studio: Studio) -> None:
    counts = _counts(settings, model.resolutions, len(paths))
    two = len(paths) == 2
    studio.begin(model, len(paths) + 1, len(counts) + 2 if two else len(paths) + 1)
    pictures = pictures_of(model, paths)
    for count in studio.track(counts, len(counts), f"swapping latents of {len(paths)} images"):
        rows = swap_rows(model, pictures, count, settings.coordinates, settings.latents, settings.seed, settings.batch)
        for i, row in enumerate(rows):
            studio.add(row, [f"first-{count}-of-image-{i}-others-of-{j}" for j in range(len(row))])
    names = [path.name for path in paths]
    headers = [first_groups_header(count, model.resolutions) for count in counts]
    studio.finish(
        partial(_over_counts, pictures, names, headers) if two else partial(_over_pairs, pictures, names, counts[0])
    )


def _counts(settings: SwapSettings, resolutions: Sequence[int], images: int) -> Sequence[int]:
    """The numbers of coarse groups to show."""
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
    pictures: Pictures, names: Sequence[str], headers: Sequence[str], mixed: Sequence[Pictures]
) -> Image.Image:
    """Two rows over the number of coarse groups, which are either image's; `mixed` has K · N rows (N, H, W, C)."""
    rows = [np.stack([pictures[a], *(row[1 - a] for row in mixed[a::2]), pictures[1 - a]]) for a in range(2)]
    title = "first groups of image A, the others of image B"
    return picture_grid(rows, [f"A = {name}" for name in names], ["image A", *headers, "image B"], title)


def _over_pairs(pictures: Pictures, names: Sequence[str], count: int, mixed: Sequence[Pictures]) -> Image.Image:
    """A row for each image's coarse groups, a column for each image's fine ones; `mixed` has N rows (N, H, W, C)."""
    rows = [np.concatenate([np.full_like(pictures[:1], 255), pictures])]
    rows += [np.concatenate([pictures[i : i + 1], row]) for i, row in enumerate(mixed)]
    title = f"first {count} groups of the image at the left, the others of the image above"
    return picture_grid(rows, ["", *names], title=title)
