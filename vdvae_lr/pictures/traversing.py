"""`traverse`: one channel of one latent group is moved, and everything else is held.

Shapes: K channels moved, S steps, C channels (1 or 3), H W resolution, R the group's resolution.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.group_choice import describe_groups
from vdvae_lr.model.latent_model import LatentModel, Latents
from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures
from vdvae_lr.pictures.image_files import Images, one_picture_of
from vdvae_lr.pictures.images import SAMPLES_NOISE, Pictures, check_choice, in_batches
from vdvae_lr.pictures.latent_codes import Coordinates, EditableImages, PosteriorLatents, infer_code

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

    A move of 0 gives the image's reconstruction, or the sample's own mean image.

    Args:
        image: the image whose latents are moved: (H, W, C) or (1, H, W, C) uint8, or a file; None: picture 0 of
            `sample`.
        group: the group of the moved channels, counted from 0, the coarsest.
        moves: S numbers, each of which is added to the latent.
        channels: the channels to move, one at a time, counted from 0; None: all of the group.
        position: (row, column) in the group's R × R; None: the channel is moved at all positions together.
        unit: prior_scale: `moves` are multiples of each latent's σ_p; raw: they are in the latents' own scale.
        coordinates: what the finer groups keep. standardised: their (z − μ_p)/σ_p, so that they follow; latents: their
            z.
        latents: mean: the posterior's mean in each group; sample: one draw.
        temperature: temperature of the sample, if there is no image.
        seed: seed of the draws.
        batch: number of pictures at once, for memory and time. It changes pictures by rounding only.

    Raises:
        InputError: the image, group, channel, position or moves cannot be used, or a choice is unknown.
    """
    check_choice("unit", unit, MoveUnit)
    check_choice("latents", latents, PosteriorLatents)
    chosen = check_place(model, group, channels, position)
    moves = [float(move) for move in moves]
    if not moves or not all(map(math.isfinite, moves)):
        raise InputError("moves must be finite numbers, and at least one of them.")
    code = _start(model, image, latents, temperature, seed)
    editable = EditableImages(model, code, coordinates)
    scale = code.priors[group].log_scale.exp()
    step = scale if unit == "prior_scale" else torch.ones_like(scale)
    step = step / scale if coordinates == "standardised" else step  # what a move of 1 adds to the group's values
    own = editable.pictures([0])
    result = np.broadcast_to(own, (len(chosen), len(moves), *own.shape[1:])).copy()
    rows, columns = position or (slice(None), slice(None))
    cells = [(i, j) for i in range(len(chosen)) for j in range(len(moves)) if moves[j] != 0]
    for part in in_batches(cells, batch):
        values = [value.expand(len(part), -1, -1, -1) for value in editable.values]
        values[group] = values[group].clone()
        for number, (i, j) in enumerate(part):
            values[group][number, chosen[i], rows, columns] += moves[j] * step[0, chosen[i], rows, columns]
        result[tuple(np.array(part).T)] = editable.pictures([0] * len(part), values, first=group)
    return result


def check_place(
    model: LatentModel, group: int, channels: Sequence[int] | None, position: tuple[int, int] | None
) -> tuple[int, ...]:
    """The channels to move; None means all of the group.

    Raises:
        InputError: the model does not have the group, a channel or the position. The message says what it has.
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


def _start(
    model: LatentModel, image: Images | None, latents: PosteriorLatents, temperature: Temperature, seed: int
) -> Latents:
    if image is not None:
        return infer_code(model, one_picture_of(model, image), latents, seed, batch=1)
    noise = ExampleNoise(model, SAMPLES_NOISE, seed, prior=True, image=True).draw(range(1)).prior
    return model.generate(1, noise, group_temperatures(temperature, model.resolutions))
