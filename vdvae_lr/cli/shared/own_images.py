"""What the commands that start from a person's own image files share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vdvae_lr.cli.shared.picture_output import PictureSettings, Studio
from vdvae_lr.pictures.image_files import read_image
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import PosteriorLatents

_CHANGES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class OwnImagesSettings(PictureSettings):
    """A model, pictures, and how images become latents."""

    latents: PosteriorLatents = "mean"
    """Of an image: the posterior's mean in every group, or one draw."""
    exact: bool = False
    """Refuse image files that would have to be cut, turned, resized or converted."""


def check_image_files(settings: OwnImagesSettings, studio: Studio, paths: Sequence[Path]) -> None:
    """Read every file once before anything is made or written, and say what has to be done to them.

    Raises:
        InputError: a file that cannot be read, or an inexact one where exact ones are asked for.
    """
    changed = []
    for path in paths:
        change = read_image(path, studio.model.config, settings.exact).change
        if change:
            changed.append(f"{path}: {change}")
    for line in changed[:_CHANGES_SHOWN]:
        studio.say(line)
    if len(changed) > _CHANGES_SHOWN:
        studio.say(f"… and so {len(changed) - _CHANGES_SHOWN:,} more of {len(paths):,} files")


def read_pictures(studio: Studio, paths: Sequence[Path]) -> Pictures:
    """The files' images (B, H, W, C); raises InputError as `read_image` does."""
    return np.stack([read_image(path, studio.model.config).picture for path in paths])


def first_groups_header(count: int, resolutions: Sequence[int]) -> str:
    """A column's header in two lines: how many groups are the first, and the resolution of the last of them."""
    if count == 0:
        return "none"
    words = f"all {count}" if count == len(resolutions) else f"first {count}"
    return f"{words}\nto {resolutions[count - 1]}x{resolutions[count - 1]}"
