"""Arrays in `.mat` files: scipy writes them and is the reference; damage of any kind is one sentence."""

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from scipy.io import savemat
from scipy.sparse import csc_matrix

from vdvae_lr.datasets.array_files import DataFileError
from vdvae_lr.datasets.mat_files import read_arrays

NUMBERS = np.random.default_rng(0).random((7, 5))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "u1", "i2", "u4", "i8", "?"])
def test_numbers_come_back_as_they_were(tmp_path: Path, dtype: str, compressed: bool) -> None:
    a, other = (100 * NUMBERS).astype(dtype), NUMBERS[:3, :2]
    content = {
        "before": np.zeros((50, 50)),
        "a": a,
        "text": "no array",
        "cells": np.full((2, 2), "x", object),
        "b": other,
    }
    savemat(tmp_path / "a.mat", content, do_compression=compressed)
    found = read_arrays(tmp_path / "a.mat", {"a": (7, 5), "b": (3, 2)})
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], other)


def test_the_other_byte_order_is_read(tmp_path: Path) -> None:
    """MATLAB on other machines wrote such files: one matrix `a` = [1; 2], with a small element for its name."""
    words = np.array([6, 8, 6, 0, 5, 8, 2, 1, 1 << 16 | 1, ord("a") << 24, 4 << 16 | 4, 1 << 16 | 2], ">u4").tobytes()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI"
    (tmp_path / "a.mat").write_bytes(header + np.array([14, len(words)], ">u4").tobytes() + words)
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.mat", {"a": (2, 1)})["a"], [[1], [2]])


@pytest.mark.parametrize(
    "content",
    [NUMBERS * 1j, {"nested": 1.0}, np.full((7, 5), "x", object), csc_matrix(NUMBERS), "text"],
    ids=["complex", "struct", "cells", "sparse", "text"],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path, content: object) -> None:
    savemat(tmp_path / "a.mat", {"a": content})
    with refused("a.mat", "'a' is no array of real numbers", ""):
        read_arrays(tmp_path / "a.mat", {"a": (7, 5)})


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"a": NUMBERS}, do_compression=compressed)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataFileError, match=r"is no \.mat file|is damaged|is cut short or damaged|has no variable"):
            read_arrays(path, {"a": (7, 5)})


@pytest.mark.parametrize("compressed", [False, True])
def test_changed_bytes_are_refused_or_change_numbers_only(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"a": NUMBERS, "b": NUMBERS}, do_compression=compressed)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(500):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 3))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            assert read_arrays(path, {"a": (7, 5)})["a"].shape == (7, 5)
        except DataFileError as error:
            assert str(path) in str(error)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat(tmp_path / "a.mat", {"a": np.zeros((4_000, 1_000)), "b": NUMBERS}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 100_000
    sizes = []
    unpacker = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self._real = unpacker()

        def decompress(self, content: bytes, most: int) -> bytes:
            sizes.append(len(unpacked := self._real.decompress(content, most)))
            return unpacked

        @property
        def eof(self) -> bool:
            return self._real.eof

    monkeypatch.setattr("vdvae_lr.datasets.mat_files.zlib.decompressobj", Watched)
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.mat", {"b": (7, 5)})["b"], NUMBERS)
    assert max(sizes) < 70_000
    with refused("a.mat", "'a' has the shape (4000, 1000) instead of (7, 5)", ""):
        read_arrays(tmp_path / "a.mat", {"a": (7, 5)})


def test_other_kinds_of_files_are_named(tmp_path: Path) -> None:
    for content in (b"", b"<html>" * 50, b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)):
        (tmp_path / "a.mat").write_bytes(content)
        with refused("a.mat", "is no .mat file of MATLAB 5 to 7", ""):
            read_arrays(tmp_path / "a.mat", {"a": (7, 5)})
    with refused("gone.mat", "does not exist", ""):
        read_arrays(tmp_path / "gone.mat", {"a": (7, 5)})
