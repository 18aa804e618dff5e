"""`interpolate`: the pictures between two images, along a line or an arc between their latents.

Shapes: S steps, C channels (1 or 3), H W resolution, Z latent channels, R a group's resolution.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.image_files import Images, one_picture_of
from vdvae_lr.pictures.images import Pictures, check_choice, in_batches
from vdvae_lr.pictures.latent_codes import Coordinates, EditableImages, PosteriorLatents, infer_code

InterpolationPath = Literal["spherical", "linear"]
_LEAST_SINE = 1e-3  # below it, rounding would choose the arc between nearly parallel or opposite latents


@torch.inference_mode()
def interpolate(
    model: LatentModel,
    first: Images,
    second: Images,
    *,
    steps: int = 9,
    path: InterpolationPath = "spherical",
    groups: str | int = "all",
    coordinates: Coordinates = "standardised",
    latents: PosteriorLatents = "mean",
    seed: int = 0,
    batch: int = 32,
) -> Pictures:
    """Equal steps from the reconstruction of `first` to that of `second`: (S, H, W, C) uint8.

    Both ends are the reconstructions, up to rounding. If only some groups move, the others keep the latents of the
    first image, and the last picture has the second image's latents in the groups that moved.

    Args:
        first, second: one image each: (H, W, C) or (1, H, W, C) uint8, or a file.
        steps: S, both ends included; at least 2.
        path: spherical: an arc in each group, so that latents keep a length that is likely under the prior; linear: a
            line, which passes nearer to the prior's mean.
        groups: the groups that move, as `parse_groups` takes them (3, `0:5`, `16x16`, `all`).
        coordinates: what is interpolated. standardised: (z − μ_p)/σ_p, so that finer groups follow the coarser ones;
            latents: z itself. An arc means nothing for z, so this needs the linear path.
        latents: mean: the posterior's mean in each group; sample: one draw.
        seed: seed of these draws.
        batch: number of pictures at once, for memory and time. It changes pictures by rounding only.

    Raises:
        InputError: the images, steps or groups cannot be used, or a choice is unknown.
    """
    check_interpolation(steps, path, coordinates)
    moving = parse_groups(groups, model.resolutions)
    pair = np.concatenate([one_picture_of(model, images) for images in (first, second)])
    editable = EditableImages(model, infer_code(model, pair, latents, seed, batch), coordinates)
    all_move = len(moving) == len(editable.values)
    fractions = torch.linspace(0, 1, steps, dtype=torch.float64).tolist()
    parts = [editable.pictures([0])]
    for part in in_batches(fractions[1:-1] if all_move else fractions[1:], batch):
        between = [
            _between(ends, part, path if group in moving else None) for group, ends in enumerate(editable.values)
        ]
        parts.append(editable.pictures([0] * len(part), between, first=moving[0]))
    if all_move:
        parts.append(editable.pictures([1]))
    return np.concatenate(parts)


def check_interpolation(steps: int, path: InterpolationPath, coordinates: Coordinates) -> None:
    """Refuse settings that do not make an interpolation (raises InputError)."""
    check_choice("path", path, InterpolationPath)
    check_choice("coordinates", coordinates, Coordinates)
    if steps < 2:
        raise InputError(f"steps is {steps}; it must be 2 or more, because both ends count.")
    if path == "spherical" and coordinates == "latents":
        raise InputError("an arc needs coordinates in which the prior is round; choose standardised, or a linear path.")


def _between(ends: Tensor, fractions: Sequence[float], path: InterpolationPath | None) -> Tensor:
    """The points at some fractions between a group's ends (2, Z, R, R): (S, Z, R, R). No path: the first end."""
    if path is None:
        return ends[:1].expand(len(fractions), -1, -1, -1)
    towards = ends.new_tensor(fractions)
    return arc(ends[0], ends[1], towards) if path == "spherical" else _line(ends[0], ends[1], towards)


def _line(first: Tensor, second: Tensor, fractions: Tensor) -> Tensor:
    towards = fractions.view(-1, *[1] * first.dim())
    return (1 - towards) * first + towards * second


def arc(first: Tensor, second: Tensor, fractions: Tensor) -> Tensor:
    """Points at fractions (S,) of the arc between two latents of one shape (…): (S, …).

    The direction turns at a constant rate (Shoemake 1985: sin((1 − t)Ω)/sin Ω and sin(tΩ)/sin Ω of unit vectors, where
    the whole latent is one vector). The length changes at a constant rate from one to the other, so that points between
    nearly opposite latents are not longer than both. Where the ends have no angle between them, the arc is the line.
    """
    lengths = first.norm(), second.norm()
    cosine = (first * second).sum() / (lengths[0] * lengths[1]).clamp(min=torch.finfo(first.dtype).tiny)
    angle = cosine.clamp(-1, 1).acos()
    if angle.sin() < _LEAST_SINE or min(lengths) == 0:
        return _line(first, second, fractions)
    towards = fractions.view(-1, *[1] * first.dim())
    turned = ((1 - towards) * angle).sin() * first / lengths[0] + (towards * angle).sin() * second / lengths[1]
    return _line(*lengths, fractions).view_as(towards) * turned / angle.sin()
