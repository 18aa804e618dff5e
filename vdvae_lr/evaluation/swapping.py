"""`swap`: the coarse groups of one image with the fine groups of another, for all pairs.

Shapes: N images, C channels (1 or 3), H W resolution.
"""

import numpy as np
import torch

from vdvae_lr.evaluation.image_files import Images, pictures_of
from vdvae_lr.evaluation.images import Pictures
from vdvae_lr.evaluation.latent_codes import Coordinates, PosteriorLatents, chunks, decoded_pictures, infer_code
from vdvae_lr.evaluation.quantities import group_resolutions
from vdvae_lr.evaluation.reconstructing import check_first_groups
from vdvae_lr.model.vae import VDVAE


@torch.inference_mode()
def swap(
    model: VDVAE,
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
        batch: pictures at once; changes nothing but memory and time.

    Raises:
        InputError: images or a number of groups that cannot be used.
    """
    pictures = pictures_of(model.config, images)
    check_first_groups(first_groups, group_resolutions(model))
    code = infer_code(model, pictures, latents, seed, range(len(pictures)))
    values = code.values(coordinates)
    own = decoded_pictures(model, code.sources(), len(pictures))
    count = len(pictures)
    result = np.broadcast_to(own[:, None], (count, *own.shape)).copy()
    if first_groups == 0:
        return np.broadcast_to(own[None], result.shape).copy()
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j and first_groups < len(values)]
    for chunk in chunks(len(pairs), batch):
        coarse, fine = zip(*pairs[chunk.start : chunk.stop], strict=True)
        mixed = [value[list(fine)] for value in values]
        sources = code.rows(coarse).edited(mixed, coordinates, first_groups)
        result[list(coarse), list(fine)] = decoded_pictures(model, sources, len(chunk))
    return result
