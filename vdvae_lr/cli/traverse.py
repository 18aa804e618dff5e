"""`vdvae-lr traverse`: what the image does when single channels of one latent group move."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image

from vdvae_lr.cli.shared.film_settings import FilmSettings
from vdvae_lr.cli.shared.picture_output import OwnImagesSettings, Studio, counted, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.films import film_frame
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.image_files import find_image_files, pictures_of
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.pictures.traversing import MoveUnit, check_place, traverse
from vdvae_lr.setting_checks import Between, CountOrNone, PathText


@dataclass(frozen=True, kw_only=True)
class TraverseSettings(FilmSettings, OwnImagesSettings):
    """Move one latent channel at a time: a row for each channel, a column for each step. A film shows all channels at
    once, each moved by itself."""

    COMMAND: ClassVar[str] = "traverse"
    NAMES: ClassVar[str] = r"-group-\d+-channel-\d+-move-[-+\d.e]+"

    group: CountOrNone
    """Latent group of the channels, counted from 0, the coarsest."""
    image: PathText = ""
    """Image file whose latents are moved; empty: picture 0 of `sample` with this seed and temperature."""
    channels: str = "all"
    """Channels of the group, counted from 0, with commas; all: every channel. Each is moved by itself."""
    position: str = "all"
    """ROW,COLUMN in the group, counted from 0; all: the channel is moved at all positions together."""
    reach: Annotated[float, Between(0, above=True)] = 3.0
    """Moves go from minus this number to plus this number."""
    steps: Annotated[int, Between(2, 65_536)] = 7
    """Number of moves; an odd number has the unmoved picture in the middle."""
    unit: MoveUnit = "prior_scale"
    """Unit of the moves: the prior's scale of each latent, or the latents' own scale (raw)."""
    coordinates: Coordinates = "standardised"
    """What the finer groups keep. standardised: (z - prior mean) / prior scale, so that they follow; latents: z
    itself."""
    temperature: str = "1.0"
    """Temperature of the sample, if no image is given. Written as for `sample`."""


def run(settings: TraverseSettings) -> None:
    """Traverse (raises InputError if the model, image, group, channels, position or a place cannot be used)."""
    channels = None if settings.channels == "all" else _numbers(settings.channels, "channels", "0,3")
    place = None if settings.position == "all" else _numbers(settings.position, "position", "2,1", exactly=2)
    paths = find_image_files([settings.image]) if settings.image else []
    if len(paths) > 1:
        raise InputError(f"{len(paths)} images were found where one is wanted; name one image file.")
    position = (place[0], place[1]) if place else None
    make_pictures(settings, partial(_traverse, settings, paths, channels, position), paths)


def _traverse(
    settings: TraverseSettings,
    paths: list[Path],
    channels: tuple[int, ...] | None,
    position: tuple[int, int] | None,
    model: PretrainedModel,
    studio: Studio,
) -> None:
    moving = check_place(model, settings.group, channels, position)
    temperature = group_temperatures(settings.temperature, model.resolutions)
    studio.begin(model, len(moving), settings.steps)
    image = pictures_of(model, paths) if paths else None
    moves, film_moves = (np.linspace(-settings.reach, settings.reach, n) for n in (settings.steps, settings.frames))
    chosen = settings.chosen("group", "unit", "coordinates", "latents", "seed", "batch")
    chosen |= {"position": position, "temperature": temperature}
    film: list[Pictures] = []
    for channel in studio.track(moving, len(moving), f"moving {counted(len(moving), 'channel')}"):
        (row,) = traverse(model, image, channels=[channel], moves=moves, **chosen)
        if settings.animate:
            film.extend(traverse(model, image, channels=[channel], moves=film_moves, **chosen))
        studio.add(row, [f"group-{settings.group}-channel-{channel}-move-{move:+.3g}" for move in moves])
    labels = [f"channel {channel}" for channel in moving]
    headers = [f"{move:+.3g}" if move else "0" for move in moves]
    title = _title(settings, model.resolutions[settings.group])
    studio.finish(
        lambda rows: picture_grid(rows, labels, headers, title),
        lambda number: _frame([each[number] for each in film], moving, f"moved by {film_moves[number]:+.3g}"),
    )


def _frame(pictures: Sequence[Pictures], channels: Sequence[int], title: str) -> Image.Image:
    """The pictures (H, W, C) of all channels in a square, or nearly so."""
    side = math.ceil(math.sqrt(len(pictures)))
    starts = range(0, len(pictures), side)
    labels = [f"channels {', '.join(map(str, channels[start : start + side]))}" for start in starts]
    return film_frame([np.stack(pictures[start : start + side]) for start in starts], labels, (), title)


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
