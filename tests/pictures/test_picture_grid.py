"""The grid's layout, and files that are written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from vdvae_lr.errors import InputError
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.pictures.picture_grid import MIN_TILE, check_grid_fits, drawable, picture_grid, save_png

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


def dark_columns(grid: Image.Image, first_row: int, last_row: int) -> np.ndarray:
    """Columns with ink between two rows of pixels."""
    return np.nonzero((np.asarray(grid)[first_row:last_row].max(-1) < 100).any(0))[0]


def test_headers_stand_above_their_columns() -> None:
    grid = picture_grid([plain(RED, 2, 64)], ["a"], ["I", "I"], "title")
    red = area(grid, RED)
    bare = area(picture_grid([plain(RED, 2, 64)], ["a"]), RED)
    assert red[0].min() > bare[0].min() and red.shape == bare.shape
    left = red[1].min()
    inked = dark_columns(grid, red[0].min() - 20, red[0].min())
    assert abs(inked[inked < left + 66].mean() - (left + 32)) < 2
    assert abs(inked[inked >= left + 66].mean() - (left + 66 + 32)) < 2
    assert dark_columns(grid, 0, red[0].min() - 20).max() < left + 64  # the title


def test_columns_make_room_for_wide_headers_and_tall_ones() -> None:
    wide = picture_grid([plain(RED, 2, 64)], [""], ["a header that is wide", "a header that is wide"])
    starts = np.unique(area(wide, RED)[1])
    assert np.diff(starts).max() > 66  # the gap between the pictures
    inked = dark_columns(wide, 0, area(wide, RED)[0].min())
    assert inked.min() > 0 and inked.max() < wide.width - 1  # nothing is cut
    assert len(np.unique(np.diff(inked))) > 1
    lines = [area(picture_grid([plain(RED, 1, 64)], [""], [text]), RED)[0].min() for text in ("x", "x\nx", "x\nx\nx")]
    assert lines[2] - lines[1] == lines[1] - lines[0] > 10


def test_a_long_title_is_not_cut() -> None:
    grid = picture_grid([plain(RED, 1, 64)], [""], title="a title much longer than one picture is wide, by far")
    assert 200 < dark_columns(grid, 0, 30).max() < grid.width - 1


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("photo.png", "photo.png"),
        ("Häuser é", "Hauser e"),
        ("日本.png", "??.png"),
        ("a\tb", "a?b"),
        ("x" * 61, "x" * 28 + "..." + "x" * 28),
        ("x" * 60, "x" * 60),
    ],
)
def test_labels_are_in_letters_that_the_font_has(text: str, drawn: str) -> None:
    assert drawable(text) == drawn


def test_a_grid_that_nobody_could_open_is_refused() -> None:
    check_grid_fits(100, 100, 32)
    with refused("a grid of 1,000,000 pictures of 32x32", "too large", "--files"):
        check_grid_fits(1000, 1000, 32)
    with refused("1024x1024", "too large", "fewer"):
        check_grid_fits(8, 8, 1024)
    check_grid_fits(7, 8, 1024)
