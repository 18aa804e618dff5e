"""`swap`: the coarse groups of one image with the fine groups of another, for all pairs of images.

Shapes: N images, C channels (1 or 3), H W resolution.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch

from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.image_files import Images, pictures_of
from vdvae_lr.pictures.images import Pictures, in_batches
from vdvae_lr.pictures.latent_codes import Coordinates, EditableImages, PosteriorLatents, infer_code
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
    """Every image's coarse latents with every image's fine latents: (N, N, H, W, C) uint8.

    `[i, j]` has the first groups of image i and the others of image j. `[i, i]` is the reconstruction of image i. If
    all groups are among the first, so is all of row i; if none is, so is all of column i.

    Args:
        images: (N, H, W, C) uint8, or image files and folders.
        first_groups: number of coarse groups, from 0 to L.
        coordinates: what the fine groups keep. standardised: their (z − μ_p)/σ_p, so that they follow the coarse
            groups; latents: their z.
        latents: mean: the posterior's mean in each group; sample: one draw.
        seed: seed of these draws.
        batch: number of pictures at once, for memory and time. It changes pictures by rounding only.

    Raises:
        InputError: the images or the number of groups cannot be used, or a choice is unknown.
    """
    return np.stack(list(swap_rows(model, images, first_groups, coordinates, latents, seed, batch)))


@torch.inference_mode()
def swap_rows(
    model: LatentModel,
    images: Images,
    first_groups: int,
    coordinates: Coordinates,
    latents: PosteriorLatents,
    seed: int,
    batch: int,
) -> Iterator[Pictures]:
    """The rows (N, H, W, C) of `swap` one after the other, so that all pairs need not fit in memory."""
    pictures = pictures_of(model, images)
    check_first_groups(first_groups, model.resolutions)
    editable = EditableImages(model, infer_code(model, pictures, latents, seed, batch), coordinates)
    everyone = range(len(pictures))
    own = np.concatenate([editable.pictures(rows) for rows in in_batches(everyone, batch)])
    together = in_batches(everyone, max(1, batch // len(pictures)))
    return chain.from_iterable(_mixed(editable, own, rows, first_groups, batch) for rows in together)


@torch.inference_mode()
def _mixed(editable: EditableImages, own: Pictures, rows: range, first_groups: int, batch: int) -> Pictures:
    """Neighbouring rows, which share batches where they are short: (len(rows), N, H, W, C)."""
    result = np.broadcast_to(own[rows][:, None] if first_groups else own, (len(rows), *own.shape)).copy()
    is_mixed = 0 < first_groups < len(editable.values)
    pairs = [(coarse, fine) for coarse in rows for fine in range(len(own)) if coarse != fine and is_mixed]
    for part in in_batches(pairs, batch):
        coarse, fine = map(list, zip(*part, strict=True))
        values = [value[fine] for value in editable.values]
        result[[i - rows.start for i in coarse], fine] = editable.pictures(coarse, values, first=first_groups)
    return result
