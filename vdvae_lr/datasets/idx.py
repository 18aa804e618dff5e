"""Fashion-MNIST's `idx` files: 28×28 pixels, one channel, zero-padded to the model's image size."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from vdvae_lr.datasets.sources import ArraySource, Pixels, Splits, all_rows, existing, preparation_command
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, exists

TRAIN_FILE, VALID_FILE, TEST_FILE = (f"{part}-images-idx3-ubyte" for part in ("train", "valid", "t10k"))
HELD_OUT = 5_000
SIDE = 28
_HEADER = struct.Struct(">IIII")  # magic, images, rows, columns
_MAGIC = 0x00000803  # unsigned bytes in three dimensions


def open_fashion(root: Path, image_size: int, held_out: int = HELD_OUT) -> Splits:
    """The official files: the last `held_out` training images are validation, `t10k` is the test set."""
    images = pad_images(read_idx_images(root, TRAIN_FILE, "fashion"), image_size)
    if len(images) <= held_out:
        raise InputError(
            f"{root / TRAIN_FILE} holds {len(images)} images, but the split of 'fashion' holds out {held_out} of them: "
            f"fetch the whole file with `{preparation_command('fashion')}`"
        )
    rows = all_rows(images)
    test = pad_images(read_idx_images(root, TEST_FILE, "fashion"), image_size)
    return Splits(
        ArraySource(images, rows[:-held_out], TRAIN_FILE),
        ArraySource(images, rows[-held_out:], TRAIN_FILE),
        ArraySource(test, all_rows(test), TEST_FILE),
    )


def open_fashion_small(root: Path, image_size: int) -> Splits:
    """The bundled subset: one file a split."""
    parts = []
    for name in (TRAIN_FILE, VALID_FILE, TEST_FILE):
        images = pad_images(read_idx_images(root, name, "fashion_small"), image_size)
        parts.append(ArraySource(images, all_rows(images), name))
    train, valid, test = parts
    return Splits(train, valid, test)


def read_idx_images(root: Path, name: str, dataset: str) -> Pixels:
    """Images (N, 28, 28, 1) uint8 of `root/name` or its `.gz`; `InputError` when missing, cut or of another kind."""
    plain = root / name
    path = existing(plain if exists(plain) else root / f"{name}.gz", dataset)
    remedy = f"delete it and fetch it again with `{preparation_command(dataset)}`"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:  # a damaged archive has none
            raise cannot_be_read(path, error) from None
        raise InputError(f"{path} cannot be read ({error}): {remedy}") from error
    if len(content) < _HEADER.size:
        raise InputError(f"{path} is cut short inside its header: {remedy}")
    magic, n_images, height, width = _HEADER.unpack_from(content)
    if magic != _MAGIC or (height, width) != (SIDE, SIDE):
        raise InputError(f"{path} is not an idx file of {SIDE}×{SIDE} images: {remedy}")
    expected = n_images * SIDE * SIDE
    if len(content) - _HEADER.size != expected:
        raise InputError(f"{path} holds {len(content) - _HEADER.size} bytes of pixels instead of {expected}: {remedy}")
    return np.frombuffer(content, np.uint8, offset=_HEADER.size).reshape(n_images, SIDE, SIDE, 1)


def pad_images(images: Pixels, image_size: int) -> Pixels:
    """Images (N, 28, 28, 1) in the middle of a black square (N, image_size, image_size, 1)."""
    if image_size < SIDE or (image_size - SIDE) % 2:
        raise InputError(
            f"image_size {image_size} does not fit Fashion-MNIST: its {SIDE}×{SIDE} images are padded evenly, "
            f"so choose an even number from {SIDE} up, such as 32"
        )
    border = (image_size - SIDE) // 2
    return np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))
