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
from vdvae_lr.pictures.images import Pictures
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

InterpolationPath = Literal["spherical", "linear"]
_LEAST_SINE = 1e-3  # of nearly parallel or opposite latents rounding would choose the arc; the line is taken there


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
    """From the reconstruction of `first`, in equal steps, to that of `second`: (S, H, W, C) uint8.

    Both ends are the reconstructions, but for rounding. Where only some groups move, the others stay the first image's,
    and the last picture has the second image's latents in the groups that moved.

    Args:
        model: on its device.
        first, second: one image each: (H, W, C) or (1, H, W, C) uint8, or a file.
        steps: S, with both ends: 2 or more.
        path: spherical: along an arc, by group, so that latents keep a length that the prior thinks likely; linear:
            along a line, which passes nearer to the prior's mean.
        groups: which move, as `parse_groups` takes them (3, `0:5`, `16x16`, `all`).
        coordinates: standardised: (z − μ_p)/σ_p, so that finer groups follow the coarser; latents: z itself, for which
            an arc means nothing: linear only.
        latents: mean: each group's posterior mean; sample: one draw.
        seed: of such draws.
        batch: pictures at once, for memory and time; they are the same but for rounding.

    Raises:
        InputError: images, steps, groups or coordinates that cannot be used.
    """
    check_interpolation(steps, path, coordinates)
    check_choice("latents", latents, PosteriorLatents)
    resolutions = model.resolutions
    moving = parse_groups(groups, resolutions)
    pair = np.concatenate([one_picture_of(model.config, images) for images in (first, second)])
    code = infer_code(model, pair, latents, seed, batch)
    values = values_of(code, coordinates)
    fractions = torch.linspace(0, 1, steps, dtype=torch.float64).tolist()
    parts = [own_pictures(model, code.rows([0]))]
    inner = fractions[1:] if len(moving) < len(resolutions) else fractions[1:-1]
    for chunk in chunks(len(inner), batch):
        between = [
            _between(value, inner[chunk.start : chunk.stop], path if group in moving else None)
            for group, value in enumerate(values)
        ]
        start = code.rows([0] * len(chunk))
        parts.append(decoded_pictures(model, edited(start, between, coordinates, moving[0]), len(chunk)))
    if len(inner) < steps - 1:
        parts.append(own_pictures(model, code.rows([1])))
    return np.concatenate(parts)


def check_interpolation(steps: int, path: InterpolationPath, coordinates: Coordinates) -> None:
    """Refuse what is no interpolation (raises InputError)."""
    check_choice("path", path, InterpolationPath)
    check_choice("coordinates", coordinates, Coordinates)
    if steps < 2:
        raise InputError(f"steps is {steps}; an interpolation has both its ends, so 2 or more.")
    if path == "spherical" and coordinates == "latents":
        raise InputError("an arc needs coordinates in which the prior is round; choose standardised, or a linear path.")


def _between(ends: Tensor, fractions: Sequence[float], path: InterpolationPath | None) -> Tensor:
    """Of one group's ends (2, Z, R, R), what lies at each fraction: (S, Z, R, R); no path: the first end."""
    if path is None:
        return ends[:1].expand(len(fractions), -1, -1, -1)
    towards = ends.new_tensor(fractions)
    if path == "spherical":
        return arc(ends[0], ends[1], towards)
    towards = towards.view(-1, 1, 1, 1)
    return (1 - towards) * ends[0] + towards * ends[1]


def arc(first: Tensor, second: Tensor, fractions: Tensor) -> Tensor:
    """Two latents of one shape (…) and what lies between them at fractions (S,): (S, …).

    The direction turns steadily (Shoemake 1985: sin((1 − t)Ω)/sin Ω and sin(tΩ)/sin Ω of unit vectors, the latent as
    one vector), the length goes steadily from one to the other. So opposite latents, such as those of a group in which
    one channel speaks, make no longer ones between them. Without an angle to turn by, the line.
    """
    lengths = first.norm(), second.norm()
    cosine = (first * second).sum() / (lengths[0] * lengths[1]).clamp(min=torch.finfo(first.dtype).tiny)
    angle = cosine.clamp(-1, 1).acos()
    towards = fractions.view(-1, *[1] * first.dim())
    line = (1 - towards) * first + towards * second
    if angle.sin() < _LEAST_SINE or min(lengths) == 0:
        return line
    length = (1 - towards) * lengths[0] + towards * lengths[1]
    turned = ((1 - towards) * angle).sin() * first / lengths[0] + (towards * angle).sin() * second / lengths[1]
    return length * turned / angle.sin()
