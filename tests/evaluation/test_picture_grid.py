"""The grid's layout, and files that are whole or not there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.picture_grid import MIN_TILE, picture_grid, save_png
from vdvae_lr.whole_file import write_whole

RED, GREEN, GREY = [255, 0, 0], [0, 255, 0], [90]


def plain(colour: list[int], count: int, side: int) -> np.ndarray:
    return np.full((count, side, side, len(colour)), colour, dtype=np.uint8)


def area(grid: Image.Image, colour: list[int]) -> np.ndarray:
    """Rows and columns (2, N) of the pixels of exactly this colour."""
    return np.array(np.nonzero((np.asarray(grid) == np.array(colour, dtype=np.uint8)).all(-1)))


def test_small_pictures_are_enlarged_by_a_whole_factor() -> None:
    grid = picture_grid([plain(RED, 1, 24)], ["one"])
    assert area(grid, RED).shape[1] == (24 * 3) ** 2  # 3 · 24 = 72 is the first multiple from 64 up
    checks = np.indices((8, 8)).sum(0)[None, :, :, None].astype(np.uint8) % 2 * 255
    enlarged = np.asarray(picture_grid([checks], [""]))[8:72, 16:80, 0]
    np.testing.assert_array_equal(enlarged, checks[0, :, :, 0].repeat(8, 0).repeat(8, 1))


def test_large_pictures_stay_as_they_are() -> None:
    assert area(picture_grid([plain(RED, 1, 100)], ["one"]), RED).shape[1] == 100**2


def test_grey_is_shown_as_grey() -> None:
    assert area(picture_grid([plain(GREY, 2, 64)], ["two"]), [90, 90, 90]).shape[1] == 2 * MIN_TILE**2


def test_rows_stand_below_each_other_and_begin_together() -> None:
    grid = picture_grid([plain(RED, 3, 64), plain(GREEN, 2, 64)], ["short", "a longer label"])
    red, green = area(grid, RED), area(grid, GREEN)
    assert (red.shape[1], green.shape[1]) == (3 * MIN_TILE**2, 2 * MIN_TILE**2)
    assert red[0].max() < green[0].min()
    assert red[1].min() == green[1].min()


def test_labels_are_left_of_the_pictures() -> None:
    named, unnamed = (picture_grid([plain(RED, 1, 64)], [label]) for label in ("name", ""))
    left = area(named, RED)[1].min()
    assert left > area(unnamed, RED)[1].min()
    dark = np.nonzero(np.asarray(named).max(-1) < 100)
    assert dark[0].size > 20
    assert dark[1].max() < left


def test_each_row_needs_a_label() -> None:
    with pytest.raises(ValueError, match="as many labels"):
        picture_grid([plain(RED, 1, 8)], [])


def test_png_holds_the_picture_and_nothing_else_is_left(tmp_path: Path) -> None:
    grid = picture_grid([plain(RED, 2, 8)], ["two"])
    path = tmp_path / "new" / "folder" / "grid.png"
    save_png(grid, path)
    with Image.open(path) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), np.asarray(grid))
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"earlier")

    def full_disk(self: Path, content: bytes) -> int:
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match=r"file cannot be written \(No space left on device\)"):
        write_whole(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="choose another folder"):
        write_whole(tmp_path / "taken" / "file", b"")
