"""CIFAR-10 in its official pickled or binary form, split as published."""

from pathlib import Path

import numpy as np

from vdvae_lr.datasets.restricted_pickle import channels_last, load_arrays
from vdvae_lr.datasets.sources import ArraySource, Pixels, Rows, Splits, all_rows, existing, preparation_command
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import exists

PICKLED_FOLDER, BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"
SPLIT_SEED, HELD_OUT = 11172018, 5_000
_TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST_BATCH = "test_batch"
_SIDE = 32
_RECORD = 1 + 3 * _SIDE**2  # a label, then red, green and blue planes
_REMEDY = f"delete its folder and fetch it again with `{preparation_command('cifar10')}`"


def open_cifar10(root: Path, held_out: int = HELD_OUT) -> Splits:
    """`cifar-10-batches-py/` (or, without it, `cifar-10-batches-bin/`) in `root`; `test_batch` is the test set."""
    pickled = not exists(root / BINARY_FOLDER) or exists(root / PICKLED_FOLDER)
    folder = existing(root / PICKLED_FOLDER, "cifar10") if pickled else root / BINARY_FOLDER
    read = _read_pickled if pickled else _read_binary
    images = np.concatenate([read(folder, name) for name in _TRAIN_BATCHES])
    test_images = read(folder, _TEST_BATCH)
    if len(images) <= held_out:
        raise InputError(
            f"{folder} holds {len(images)} training images, but {held_out} of them are held out: {_REMEDY}"
        )
    train, valid = published_split(len(images), held_out)
    return Splits(
        ArraySource(images, train, str(folder)),
        ArraySource(images, valid, str(folder)),
        ArraySource(test_images, all_rows(test_images), str(folder / _TEST_BATCH)),
    )


def published_split(n_images: int, held_out: int) -> tuple[Rows, Rows]:
    """(training rows, held-out rows), row for row those of scikit-learn's `train_test_split` with `SPLIT_SEED`."""
    order = np.random.RandomState(SPLIT_SEED).permutation(n_images).astype(np.int64)
    return order[held_out:], order[:held_out]


def _read_pickled(folder: Path, batch: str) -> Pixels:
    path = existing(folder / batch, "cifar10")
    with path.open("rb") as file:
        content = load_arrays(file, str(path), _REMEDY)
    return channels_last(content.get("data"), _SIDE, str(path), _REMEDY)


def _read_binary(folder: Path, batch: str) -> Pixels:
    path = existing(folder / f"{batch}.bin", "cifar10")
    records = np.fromfile(path, np.uint8)
    if len(records) == 0 or len(records) % _RECORD:
        raise InputError(f"{path} is cut short: its {len(records)} bytes are not whole records of {_RECORD}; {_REMEDY}")
    return channels_last(records.reshape(-1, _RECORD)[:, 1:], _SIDE, str(path), _REMEDY)
