"""Features of many pictures, shared out over the processes, and those of a data set's images in a cache.

A file of the cache belongs to certain images at one size, and to one extractor. It appears whole, and holds a digest of
its content, so a damaged file counts as missing.

Shapes: N pictures, B of them at once, C channels, H W resolution, D features.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import Examples
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quality.extractor import Extractor
from vdvae_lr.files.download import alone
from vdvae_lr.files.hub_client import HubAccess, asset_path
from vdvae_lr.files.paths import is_file
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.hub.weight_folder import read_weights, write_weights
from vdvae_lr.processes.world import World

_SENT_AT_ONCE = 4_096  # rows
_FORMAT = 2  # of files in the cache
_LOOKED_AT = 16  # images of a data set


def gather_features(
    extractor: Extractor, pictures: Iterable[tuple[Examples, Tensor]], count: int, what: str, world: World
) -> Tensor:
    """Features of pictures 0 … count−1: (count, D) float32 on the CPU. Every process must call this.

    Args:
        extractor: the network.
        pictures: this process's share: the numbers of B pictures, and these as (B, C, H, W) uint8.
        count: N over all processes.
        what: what the pictures are, in a message.
        world: the processes.

    Raises:
        InputError: a feature is NaN or infinite.
    """
    found = torch.zeros(count, extractor.features)
    for numbers, pixels in pictures:
        found[torch.as_tensor(np.asarray(numbers, dtype=np.int64))] = extractor(pixels.to(world.device)).cpu()
    if world.size > 1:
        for part in found.split(_SENT_AT_ONCE):
            part.copy_(world.all_reduce_sum_(part.to(world.device)))
    if not torch.isfinite(found).all():
        raise InputError(f"features of {what} are NaN or infinite; check the extractor's weights.")
    return found


def cache_path(measuring: Measuring, extractor: Extractor) -> Path:
    """Where the features of these images are kept.

    The name depends on the pixels of a few images, too: a folder's fingerprint is of its file names, and two folders
    can have the same.

    Raises:
        InputError: the cache is unusable, or one of these images cannot be read.
    """
    count = measuring.count()
    pixels = measuring.source.read(np.linspace(0, count - 1, min(count, _LOOKED_AT)).astype(np.int64))
    looks = (pixels.shape, hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest())
    parts = (_FORMAT, measuring.source.fingerprint(), count, looks, extractor.name, extractor.digest)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return asset_path(f"quality/{count}-images-{digest}.safetensors", HubAccess())


def image_features(measuring: Measuring, extractor: Extractor, cache: Path) -> tuple[Tensor | None, str]:
    """Features of the data set's images (N, D), from `cache` or else computed and put there. Every process calls this.

    Returns:
        The features, None on a process that is not the main one, and a sentence about the cache, which may be empty.

    Raises:
        InputError: an image cannot be read, or a feature is not finite.
    """
    world, count = measuring.world, measuring.count()
    kept = _read(cache, (count, extractor.features)) if world.is_main else None
    if not world.highest(world.is_main and kept is None):
        return kept, f"The features of {count:,} images come from {cache}."
    batches = ((batch.indices, batch.pixels) for batch in measuring.batches("features of the data set's images"))
    found = gather_features(extractor, batches, count, "the data set's images", world)
    if not world.is_main:
        return None, ""
    try:
        _write(cache, found)
    except InputError as error:  # the numbers do not depend on it
        return found, f"The next model computes the features of the images again: {error}"
    return found, f"The features of {count:,} images are kept in {cache}."


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    try:
        kept = read_weights(path) if is_file(path) else {}
    except InputError:
        return None
    features, digest = kept.get("features"), kept.get("digest")
    if features is None or digest is None or features.shape != shape or features.dtype != torch.float32:
        return None
    return features if torch.equal(digest, _digest(features)) else None


def _write(path: Path, features: Tensor) -> None:
    with alone(path), replacing(path) as temporary:
        write_weights(temporary, {"features": features, "digest": _digest(features)})


def _digest(features: Tensor) -> Tensor:
    digest = hashlib.sha256(np.ascontiguousarray(features.numpy()).data).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)
