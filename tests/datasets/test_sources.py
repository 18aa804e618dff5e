"""What every data set has in common: files that are there and may be read, and a fingerprint of the images."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from vdvae_lr.datasets.catalogue import DATASETS, DataSettings, open_splits
from vdvae_lr.datasets.inventory import differences, inventory_lines, inventory_number, take_inventory
from vdvae_lr.datasets.sources import ArraySource, MemoryMappedSource, Splits

FILES = {
    "ffhq256": "ffhq-256.npy",
    "imagenet32": "imagenet32-train.npy",
    "fashion": "train-images-idx3-ubyte",
    "omniglot": "omniglot-source.json",
    "celeba": "celeba-64-train.npy",
    "cifar10": "cifar-10-batches-bin/data_batch_1.bin",
}


def opened(dataset: str, root: Path) -> Splits:
    known = DATASETS[dataset]
    return open_splits(DataSettings(dataset, str(root)), known.image_size or 32, known.image_channels or 3)


def source(images: np.ndarray, rows: list[int], name: str = "images") -> ArraySource:
    return ArraySource(images, np.asarray(rows, dtype=np.int64), name)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("dataset", FILES)
def test_a_pipe_in_a_files_place_is_refused_and_does_not_block(tmp_path: Path, dataset: str) -> None:
    name = FILES[dataset]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with refused(name, "neither a file nor a folder", "prepare.py"):
        opened(dataset, tmp_path)


@pytest.mark.parametrize("dataset", FILES)
def test_missing_rights_are_not_called_absence_or_damage(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = FILES[dataset]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"of somebody else")
    really_open = Path.open

    def refuse(self: Path, *arguments: str, **named: str):
        if self == tmp_path / name:
            raise PermissionError(13, "Permission denied", str(self))
        return really_open(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    with refused(name, "cannot be read (Permission denied)", "right to read"):
        opened(dataset, tmp_path)


@pytest.mark.parametrize("dataset", FILES)
def test_a_folder_that_may_not_be_looked_into_is_named(
    tmp_path: Path, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, **named: bool) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with refused(str(tmp_path), "cannot be read (Permission denied)", "right to read"):
        opened(dataset, tmp_path)


def test_the_fingerprint_of_arrays_tells_rows_order_and_pixels_apart_and_not_places(
    images: np.ndarray, tmp_path: Path
) -> None:
    rows = list(range(20))
    same = source(images, rows).fingerprint()
    np.save(tmp_path / "a.npy", images)
    assert MemoryMappedSource(tmp_path / "a.npy", np.arange(20)).fingerprint() == same
    assert source(images, rows, "elsewhere").fingerprint() == same
    others = [
        source(images, rows[:-1]),
        source(images, [*rows[:5], 6, 5, *rows[7:]]),
        source(images[:-1], rows),
        source(255 - images, rows),
    ]
    assert same not in {other.fingerprint() for other in others}


def test_an_empty_part_has_a_fingerprint(images: np.ndarray) -> None:
    assert source(images, []).fingerprint() == source(images, []).fingerprint() != source(images, [0]).fingerprint()


def test_differences_are_named_by_part(images: np.ndarray) -> None:
    splits = Splits(source(images, [0, 1, 2]), source(images, [3]), source(images, [4]))
    other = Splits(source(images, [0, 1]), source(images, [3]), source(images, [5]), {".txt": 1})
    before, after = take_inventory(splits), take_inventory(other)
    assert differences(before, after) == ["train: 3 → 2 images", "test: 1 other images"]
    assert differences(before, take_inventory(splits)) == []
    assert inventory_number(before) == inventory_number(take_inventory(splits)) != inventory_number(after)
    assert 0 <= inventory_number(before) < 2**60


def test_an_ordinary_data_set_is_one_line(images: np.ndarray) -> None:
    train, held_out = source(images, list(range(20))), source(images, [20, 21])
    assert inventory_lines(Splits(train, held_out, held_out)) == [
        "Images: 22 found: 20 training, 2 validation and test."
    ]
    assert inventory_lines(Splits(train, held_out, source(images, [22]), Counter({".txt": 0}))) == [
        "Images: 23 found: 20 training, 2 validation, 1 test."
    ]


def test_what_no_terminal_can_show_is_escaped(images: np.ndarray) -> None:
    part = source(images, [0])
    splits = Splits(part, part, part, {os.fsdecode(b"folder 'caf\xe9' beside 'train'"): 1})
    assert inventory_lines(splits)[1] == r"Left out: 1 × folder 'caf\xe9' beside 'train'."
    assert list(take_inventory(splits)["left_out"]) == [r"folder 'caf\xe9' beside 'train'"]
