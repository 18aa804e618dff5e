"""Data sets that are `.npy` files (N, H, W, 3) uint8, as published: memory-mapped, split by index, never copied."""

from pathlib import Path

import numpy as np

from vdvae_lr.datasets.sources import MemoryMappedSource, Pixels, Rows, Splits, all_rows, existing, preparation_command
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read

FFHQ256_SEED, FFHQ256_HELD_OUT = 5, 7_000
IMAGENET_SEED, IMAGENET_HELD_OUT = 42, 5_000


def open_ffhq256(root: Path, held_out: int = FFHQ256_HELD_OUT) -> Splits:
    """`ffhq-256.npy`: the last `held_out` images of a permutation are validation and test, as published."""
    path = existing(root / "ffhq-256.npy", "ffhq256")
    images = check_image_array(path, image_size=256, dataset="ffhq256")
    train, valid = published_permutation(path, len(images), FFHQ256_SEED, held_out, "ffhq256")
    held = MemoryMappedSource(path, valid)
    return Splits(MemoryMappedSource(path, train), held, held)


def open_imagenet(root: Path, image_size: int, held_out: int = IMAGENET_HELD_OUT) -> Splits:
    """`imagenet32-*.npy` or `imagenet64-*.npy`: validation is cut from `-train.npy`, `-valid.npy` is the test set."""
    name = f"imagenet{image_size}"
    train_path, test_path = (existing(root / f"{name}-{part}.npy", name) for part in ("train", "valid"))
    images = check_image_array(train_path, image_size, name)
    train, valid = published_permutation(train_path, len(images), IMAGENET_SEED, held_out, name)
    test = all_rows(check_image_array(test_path, image_size, name))
    return Splits(
        MemoryMappedSource(train_path, train),
        MemoryMappedSource(train_path, valid),
        MemoryMappedSource(test_path, test),
    )


def check_image_array(path: Path, image_size: int, dataset: str) -> Pixels:
    """The memory-mapped file, known to be whole and (N, image_size, image_size, 3) uint8; `InputError` otherwise."""
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise cannot_be_read(path, error) from None
        raise InputError(
            f"{path} is cut short or not a .npy file of images ({error}): "
            f"delete it and make it again with `{preparation_command(dataset)}`"
        ) from error
    expected = (image_size, image_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise InputError(
            f"{path} holds {images.dtype} numbers of shape {images.shape}, but '{dataset}' needs uint8 of shape "
            f"(N, {', '.join(map(str, expected))}): make it with `{preparation_command(dataset)}`"
        )
    return images


def published_permutation(path: Path, n_images: int, seed: int, held_out: int, dataset: str) -> tuple[Rows, Rows]:
    """(training rows, held-out rows): by numpy's legacy generator, whose order for a seed is frozen."""
    if n_images <= held_out:
        raise InputError(
            f"{path} holds {n_images} images, but the split of '{dataset}' holds out {held_out} of them: "
            f"make the whole file with `{preparation_command(dataset)}`"
        )
    order = np.random.RandomState(seed).permutation(n_images).astype(np.int64)
    return order[:-held_out], order[-held_out:]
