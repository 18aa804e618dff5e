"""`vdvae-lr traverse`: the channels of one latent group moved to and fro, and what the image does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np

from vdvae_lr.cli.shared.own_images import OwnImagesSettings, check_image_files, read_pictures
from vdvae_lr.cli.shared.picture_output import Studio, counted, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.image_files import find_image_files
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.picture_grid import check_grid_fits, picture_grid
from vdvae_lr.pictures.traversing import MoveUnit, check_place, traverse
from vdvae_lr.setting_checks import Between, CountOrNone, PathText


@dataclass(frozen=True, kw_only=True)
class TraverseSettings(OwnImagesSettings):
    """Move one latent channel at a time: a row for each channel, a column for each step."""

    COMMAND: ClassVar[str] = "traverse"
    NAMES: ClassVar[str] = r"-group-\d+-channel-\d+-move-[-+\d.e]+"

    group: CountOrNone
    """Latent group of the channels, counted from 0, the coarsest."""
    image: PathText = ""
    """Image file whose latents are moved; empty: picture 0 of `sample` with this seed and temperature."""
    channels: str = "all"
    """Channels of the group, counted from 0, with commas; or all: each by itself."""
    position: str = "all"
    """ROW,COLUMN in the group, counted from 0; all: the channel is moved at every position together."""
    reach: Annotated[float, Between(0, above=True)] = 3.0
    """Moves go from minus this to plus this."""
    steps: Annotated[int, Between(2, 65_536)] = 7
    """How many moves; an odd number has the unmoved picture in the middle."""
    unit: MoveUnit = "prior_scale"
    """Of the moves: the prior's scale of each latent, or the latents' own scale."""
    coordinates: Coordinates = "standardised"
    """What the finer groups keep. standardised: (z - prior mean) / prior scale, so that they follow; latents: z
    itself."""
    temperature: str = "1.0"
    """Of the sample, where no image is given; words as `sample` takes them."""

    @property
    def moves(self) -> list[float]:
        """What is added to a latent, from the left."""
        return [float(move) for move in np.linspace(-self.reach, self.reach, self.steps)]


def run(settings: TraverseSettings) -> None:
    """Traverse; raises InputError for a model, image, group, channel, position or place that cannot be used."""
    channels = None if settings.channels == "all" else _numbers(settings.channels, "channels", "0,3")
    position = None if settings.position == "all" else _numbers(settings.position, "position", "2,1", exactly=2)
    paths = find_image_files([settings.image]) if settings.image else []
    if len(paths) > 1:
        raise InputError(f"{len(paths)} images were found where one is wanted; name one image file.")
    place = (position[0], position[1]) if position else None
    make_pictures(settings, lambda studio: _traverse(settings, studio, paths, channels, place), paths)


def _traverse(
    settings: TraverseSettings,
    studio: Studio,
    paths: list[Path],
    channels: tuple[int, ...] | None,
    position: tuple[int, int] | None,
) -> None:
    chosen = check_place(studio.model, settings.group, channels, position)
    group_temperatures(settings.temperature, studio.resolutions)
    if studio.writer.wants_grid:
        check_grid_fits(len(chosen), settings.steps, studio.model.config.image_size)
    check_image_files(settings, studio, paths)
    image = read_pictures(studio, paths) if paths else None
    rows = []
    for channel in studio.tracker(chosen, len(chosen), f"moving {counted(len(chosen), 'channel')}"):
        (row,) = traverse(
            studio.model,
            image,
            group=settings.group,
            moves=settings.moves,
            channels=[channel],
            position=position,
            unit=settings.unit,
            coordinates=settings.coordinates,
            latents=settings.latents,
            temperature=settings.temperature,
            seed=settings.seed,
            batch=settings.batch,
        )
        names = [f"group-{settings.group}-channel-{channel}-move-{move:+.3g}" for move in settings.moves]
        studio.writer.singles(row, names)
        if studio.writer.wants_grid:
            rows.append(row)
    if studio.writer.wants_grid:
        labels = [f"channel {channel}" for channel in chosen]
        headers = [f"{move:+.3g}" if move else "0" for move in settings.moves]
        studio.writer.grid(picture_grid(rows, labels, headers, _title(settings, studio.resolutions[settings.group])))


def _title(settings: TraverseSettings, resolution: int) -> str:
    where = "all positions together" if settings.position == "all" else f"position {settings.position}"
    unit = "prior scales" if settings.unit == "prior_scale" else "raw latent units"
    begun = "" if settings.image else f", sample of seed {settings.seed}"
    finer = "finer groups follow" if settings.coordinates == "standardised" else "other latents as they were"
    return f"group {settings.group} ({resolution}x{resolution}), {where}, moved by {unit}; {finer}{begun}"


def _numbers(text: str, name: str, example: str, exactly: int | None = None) -> tuple[int, ...]:
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isdecimal() for piece in pieces) or (exactly is not None and len(pieces) != exactly):
        raise InputError(f"{name} is '{text}'; write all, or {name} counted from 0 such as {example}.")
    return tuple(int(piece) for piece in pieces)
