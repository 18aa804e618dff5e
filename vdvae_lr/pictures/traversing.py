"""`traverse`: one channel of one latent group moved to and fro, all else held.

Shapes: K channels moved, S steps, C channels (1 or 3), H W resolution, Z latent channels, R the group's resolution.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.group_choice import describe_groups
from vdvae_lr.model.latent_model import LatentModel, Latents
from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures
from vdvae_lr.pictures.image_files import Images, one_picture_of
from vdvae_lr.pictures.images import SAMPLES_NOISE, Pictures
from vdvae_lr.pictures.latent_codes import (
    Coordinates,
    PosteriorLatents,
    check_choice,
    chunks,
    decoded_pictures,
    edited,
    infer_code,
    own_pictures,
    values_of,
)

MoveUnit = Literal["prior_scale", "raw"]


@torch.inference_mode()
def traverse(
    model: LatentModel,
    image: Images | None = None,
    *,
    group: int,
    moves: Sequence[float] | npt.NDArray[np.floating] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
    channels: Sequence[int] | None = None,
    position: tuple[int, int] | None = None,
    unit: MoveUnit = "prior_scale",
    coordinates: Coordinates = "standardised",
    latents: PosteriorLatents = "mean",
    temperature: Temperature = 1.0,
    seed: int = 0,
    batch: int = 32,
) -> Pictures:
    """Mean images with one latent channel moved: (K, S, H, W, C) uint8, a row for each channel.

    A move of 0 is the image's reconstruction, or the sample's own mean image.

    Args:
        model: on its device.
        image: whose latents are moved: (H, W, C) or (1, H, W, C) uint8, or a file; None: picture 0 of `sample`.
        group: of the moved channels, counted from 0, the coarsest.
        moves: what is added to the latent; S of them.
        channels: of the group, counted from 0; None: each of them, by itself.
        position: (row, column) in the group's R × R; None: the channel is moved at all positions together.
        unit: prior_scale: `moves` are in σ_p of each latent; raw: in the latents' own scale.
        coordinates: what the finer groups keep. standardised: their (z − μ_p)/σ_p, so that they follow; latents: their
            z.
        latents: mean: each group's posterior mean; sample: one draw.
        temperature: of the sample, where there is no image.
        seed: of the draws.
        batch: pictures at once, for memory and time; they are the same but for rounding.

    Raises:
        InputError: an image, or a group, channel, position or move that cannot be used.
    """
    check_choice("unit", unit, MoveUnit)
    check_choice("coordinates", coordinates, Coordinates)
    check_choice("latents", latents, PosteriorLatents)
    chosen = check_place(model, group, channels, position)
    moves = _finite_moves(moves)
    base = _base_code(model, image, latents, temperature, seed)
    values = values_of(base, coordinates)
    step = _step(base, group, unit, coordinates)
    plan = [(row, column) for row in range(len(chosen)) for column in range(len(moves)) if moves[column] != 0]
    own = own_pictures(model, base)
    result = np.broadcast_to(own, (len(chosen), len(moves), *own.shape[1:])).copy()
    for chunk in chunks(len(plan), batch):
        cells = plan[chunk.start : chunk.stop]
        moved = [value.expand(len(cells), -1, -1, -1) for value in values]
        moved[group] = moved[group].clone()
        rows, columns = (slice(None), slice(None)) if position is None else position
        for cell, (row, column) in enumerate(cells):
            channel = chosen[row]
            moved[group][cell, channel, rows, columns] += moves[column] * step[0, channel, rows, columns]
        sources = edited(base.rows([0] * len(cells)), moved, coordinates, group)
        numbers = tuple(np.array(cells).T)
        result[numbers] = decoded_pictures(model, sources, len(cells))
    return result


def check_place(
    model: LatentModel, group: int, channels: Sequence[int] | None, position: tuple[int, int] | None
) -> tuple[int, ...]:
    """The channels to move, checked with their place.

    Raises:
        InputError: a group, channel or position that the model does not have; says which it has.
    """
    resolutions = model.resolutions
    if not 0 <= group < len(resolutions):
        raise InputError(f"there is no latent group {group}: {describe_groups(resolutions)}.")
    width, resolution = model.latent_shapes[group][0], resolutions[group]
    chosen = tuple(range(width)) if channels is None else tuple(channels)
    wrong = next((channel for channel in chosen if not 0 <= channel < width), None)
    if wrong is not None or not chosen:
        raise InputError(f"there is no channel {wrong}: latent group {group} has channels 0 to {width - 1}.")
    if position is not None and not all(0 <= place < resolution for place in position):
        row, column = position
        raise InputError(
            f"there is no position {row},{column}: latent group {group} is {resolution}x{resolution}, with rows and "
            f"columns 0 to {resolution - 1}."
        )
    return chosen


def _finite_moves(moves: Sequence[float] | npt.NDArray[np.floating]) -> list[float]:
    numbers = [float(move) for move in moves]
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise InputError("moves are finite numbers, at least one of them.")
    return numbers


def _base_code(
    model: LatentModel, image: Images | None, latents: PosteriorLatents, temperature: Temperature, seed: int
) -> Latents:
    if image is not None:
        return infer_code(model, one_picture_of(model.config, image), latents, seed, batch=1)
    noise = ExampleNoise(model, SAMPLES_NOISE, seed, prior=True, image=True).draw(range(1)).prior
    return model.generate(1, noise, group_temperatures(temperature, model.resolutions))


def _step(base: Latents, group: int, unit: MoveUnit, coordinates: Coordinates) -> Tensor:
    """What a move of 1 adds to the group's values in `coordinates`: (1, Z, R, R)."""
    scale = base.priors[group].log_scale.exp()
    if unit == "prior_scale":
        return scale if coordinates == "latents" else torch.ones_like(scale)
    return torch.ones_like(scale) if coordinates == "latents" else 1 / scale
