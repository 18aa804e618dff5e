"""`swap`: the coarse groups of one image with the fine groups of another, for all pairs.

Shapes: N images, C channels (1 or 3), H W resolution, Z latent channels, R a group's resolution.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.model.latent_model import LatentModel, Latents
from vdvae_lr.pictures.image_files import Images, pictures_of
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
from vdvae_lr.pictures.reconstructing import check_first_groups


def swap(
    model: LatentModel,
    images: Images,
    *,
    first_groups: int,
    coordinates: Coordinates = "standardised",
    latents: PosteriorLatents = "mean",
    seed: int = 0,
    batch: int = 32,
) -> Pictures:
    """Every image's coarse latents with every image's fine ones: (N, N, H, W, C) uint8.

    `[i, j]` has the first groups of image i and the others of image j. `[i, i]` is the reconstruction of image i, and
    so are all of row i when every group is among the first, and all of column i when none is.

    Args:
        model: on its device.
        images: (N, H, W, C) uint8, or image files and folders.
        first_groups: how many groups are coarse, from 0 to L.
        coordinates: what the fine groups keep. standardised: their (z − μ_p)/σ_p, so that they follow the coarse
            groups; latents: their z.
        latents: mean: each group's posterior mean; sample: one draw.
        seed: of such draws.
        batch: pictures at once, for memory and time; they are the same but for rounding.

    Raises:
        InputError: images, a number of groups or a choice that cannot be used.
    """
    rows = swap_rows(
        model,
        images,
        first_groups=first_groups,
        coordinates=coordinates,
        latents=latents,
        seed=seed,
        batch=batch,
    )
    return np.stack(list(rows))


@torch.inference_mode()
def swap_rows(
    model: LatentModel,
    images: Images,
    *,
    first_groups: int,
    coordinates: Coordinates,
    latents: PosteriorLatents,
    seed: int,
    batch: int,
) -> Iterator[Pictures]:
    """The rows (N, H, W, C) of `swap` one after the other, so that all pairs need not fit in memory.

    Raises:
        InputError: as `swap`.
    """
    check_choice("coordinates", coordinates, Coordinates)
    check_choice("latents", latents, PosteriorLatents)
    pictures = pictures_of(model.config, images)
    check_first_groups(first_groups, model.resolutions)
    code = infer_code(model, pictures, latents, seed, batch)
    values = values_of(code, coordinates)
    count = len(pictures)
    parts = (code.rows(chunk) for chunk in chunks(count, batch))
    own = np.concatenate([own_pictures(model, part) for part in parts])
    if first_groups == 0:
        return (own.copy() for _ in range(count))
    if first_groups == len(values):
        return (np.broadcast_to(picture, own.shape).copy() for picture in own)
    edit = _Edit(code, values, own, coordinates, first_groups)
    return chain.from_iterable(_mixed(model, edit, rows, batch) for rows in chunks(count, max(1, batch // count)))


@dataclass(frozen=True)
class _Edit:
    """What all rows are made of."""

    code: Latents
    values: tuple[Tensor, ...]
    """In `coordinates`, (N, Z, R, R) for each group."""
    own: Pictures
    """Reconstructions, (N, H, W, C)."""
    coordinates: Coordinates
    first_groups: int


@torch.inference_mode()
def _mixed(model: LatentModel, edit: _Edit, rows: range, batch: int) -> Pictures:
    """Some rows, put together where they are short: (len(rows), N, H, W, C)."""
    count = len(edit.own)
    result = np.broadcast_to(edit.own[rows.start : rows.stop, None], (len(rows), *edit.own.shape)).copy()
    pairs = [(i, j) for i in rows for j in range(count) if i != j]
    for chunk in chunks(len(pairs), batch):
        coarse, fine = zip(*pairs[chunk.start : chunk.stop], strict=True)
        mixed = [value[list(fine)] for value in edit.values]
        sources = edited(edit.code.rows(coarse), mixed, edit.coordinates, edit.first_groups)
        result[[i - rows.start for i in coarse], list(fine)] = decoded_pictures(model, sources, len(chunk))
    return result
