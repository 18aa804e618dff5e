"""Fashion-MNIST's files: splits, padding, damage, and the bundled part."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from vdvae_lr.datasets.array_files import IDX_TEST, IDX_TRAIN, read_idx, write_idx
from vdvae_lr.datasets.catalogue import DataSettings, open_fashion_small, open_idx, open_splits, pad_images
from vdvae_lr.errors import InputError
from vdvae_lr.files.bundled import bundled_folder


def idx(count: int, magic: int = 0x803, side: int = 28) -> bytes:
    """A file of `count` images, image i all of value i."""
    pixels = np.repeat(np.arange(count, dtype=np.uint8), side * side)
    return struct.pack(">IIII", magic, count, side, side) + pixels.tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    (tmp_path / f"{IDX_TRAIN}.gz").write_bytes(gzip.compress(idx(30)))
    (tmp_path / IDX_TEST).write_bytes(idx(8))
    return tmp_path


def test_the_last_training_images_are_validation(fashion: Path):
    splits = open_idx(fashion, 32, held_out=5)
    values = [s.read(range(len(s)))[:, 16, 16, 0].tolist() for s in (splits.train, splits.valid, splits.test)]
    assert values == [list(range(25)), list(range(25, 30)), list(range(8))]


def test_padding_puts_the_image_in_the_middle_of_black():
    image = np.random.default_rng(0).integers(1, 256, (1, 28, 28, 1), dtype=np.uint8)
    padded = pad_images(image, 32)
    np.testing.assert_array_equal(padded[:, 2:30, 2:30], image)
    assert padded.astype(int).sum() == image.astype(int).sum()


@pytest.mark.parametrize("image_size", [16, 27, 31])
def test_an_image_size_that_cannot_be_padded_evenly_is_refused(image_size: int):
    with pytest.raises(InputError, match=f"image_size {image_size} does not fit"):
        pad_images(np.zeros((1, 28, 28, 1), np.uint8), image_size)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(idx(9))[:-20], "is damaged"),
        (b"no gzip at all", "is damaged"),
        (gzip.compress(idx(9)[:7]), "cut short inside its header"),
        (gzip.compress(idx(9)[:-3]), "holds 7053 bytes of pixels instead of 7056"),
        (gzip.compress(idx(9) + b"x"), "holds 7057 bytes of pixels instead of 7056"),
        (gzip.compress(idx(9, magic=0x801)), "not an idx file of 28×28 images"),
        (gzip.compress(idx(9, side=14)), "not an idx file of 28×28 images"),
    ],
    ids=["cut gzip", "no gzip", "cut header", "cut pixels", "more pixels", "other magic", "other side"],
)
def test_damaged_files_are_named_with_the_remedy(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / f"{IDX_TRAIN}.gz").write_bytes(content)
    with pytest.raises(InputError, match=rf"{IDX_TRAIN}\.gz.*{reason}.*python data/fashion/prepare\.py"):
        open_splits(DataSettings("fashion", str(tmp_path)), 32, 1)


def test_what_is_written_is_read_again(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    (tmp_path / IDX_TEST).write_bytes(write_idx(images))
    np.testing.assert_array_equal(read_idx(tmp_path, IDX_TEST), images)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=rf"{IDX_TRAIN}\.gz does not exist"):
        open_idx(tmp_path, 32)


def test_fewer_images_than_are_held_out_are_refused(fashion: Path):
    with pytest.raises(InputError, match="holds 30 images, but 5000 of them have to be held out"):
        open_idx(fashion, 32)


def test_the_bundled_part_has_its_counts_and_real_pictures():
    splits = open_fashion_small(bundled_folder("data/fashion_small"), 32)
    assert [len(s) for s in (splits.train, splits.valid, splits.test)] == [6_000, 1_000, 1_000]
    images = splits.train.read(range(6_000))
    assert images.shape == (6_000, 32, 32, 1)
    assert 0.25 < images[:, 2:30, 2:30].mean() / 255 < 0.32  # Fashion-MNIST's mean is 0.286


def test_the_bundled_files_match_their_checksums():
    folder = bundled_folder("data/fashion_small")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) == 3
    for line in lines:
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert digest in (folder / "README.md").read_text()


def test_a_folder_that_is_not_bundled_is_refused():
    with pytest.raises(InputError, match="lacks its folder 'no/such/folder'"):
        bundled_folder("no/such/folder")


def test_an_installed_wheel_reads_its_own_copy(tmp_path: Path, monkeypatch):
    inside = tmp_path / "vdvae_lr" / "_bundled" / "hps"
    inside.mkdir(parents=True)
    (tmp_path / "hps").mkdir()
    monkeypatch.setattr("vdvae_lr.files.bundled._BASES", (tmp_path / "vdvae_lr" / "_bundled", tmp_path))
    assert bundled_folder("hps") == inside
