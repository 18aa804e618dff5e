"""Omniglot from its official archives and from `chardata.mat`: the same files, upright and white on black."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_images import saved
from PIL import Image
from refusals import refused
from scipy.io import savemat

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.omniglot import BACKGROUND, EVALUATION, MAT_IMAGES, Contents, convert_mat, convert_zips
from vdvae_lr.errors import InputError

TRAIN, TEST = Contents(2, 3, 4), Contents(1, 2, 4)
CHARACTERS = {"Greek": 2, "Latin": 1}
N_IMAGES = {"data": 12, "testdata": 8}
LEVELS = np.random.default_rng(0).random((784, 20))


def drawing(number: int) -> bytes:
    """Black ink on white: a vertical stroke of 15 pixels' width, further right for each number, in the upper half."""
    image = Image.new("1", (105, 105), 1)
    image.paste(0, (15 * (number % 7), 0, 15 * (number % 7) + 15, 60))
    return saved(image)


def drawings(root: str, characters: dict[str, int], each: int = 4) -> dict[str, bytes]:
    names = [
        f"{root}/{alphabet}/character{character:02d}/{character:04d}_{number:02d}.png"
        for alphabet, count in characters.items()
        for character in range(1, count + 1)
        for number in range(1, each + 1)
    ]
    return {name: drawing(number) for number, name in enumerate(names)}


def write_zip(path: Path, files: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    return [
        write_zip(tmp_path / "images_background.zip", drawings("images_background", CHARACTERS)),
        write_zip(tmp_path / "images_evaluation.zip", drawings("images_evaluation", {"Tengwar": 2})),
    ]


def convert(archives: list[Path], root: Path) -> dict[Path, int]:
    return convert_zips(archives, root, (TRAIN, TEST), held_out=5)


def write_mat(path: Path, **changes: Any) -> Path:
    """`chardata.mat` with 12 and 8 images, and the labels that the real one has too."""
    content = {"data": LEVELS[:, :12], "testdata": LEVELS[:, 12:], "target": np.eye(5, 12)} | changes
    savemat(path, {name: value for name, value in content.items() if value is not None}, do_compression=True)
    return path


def test_archives_become_three_files_and_a_record(archives: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    written = convert(archives, root)
    assert {path.name: count for path, count in written.items()} == {
        "omniglot-train.npy": 7,
        "omniglot-valid.npy": 5,
        "omniglot-test.npy": 8,
    }
    assert len(list(root.iterdir())) == 4
    record = json.loads((root / "omniglot-source.json").read_text())
    assert list(record["sha256"]) == ["images_background.zip", "images_evaluation.zip"]
    splits = open_splits(DataSettings("omniglot", str(root)), 28, 1)
    test = splits.test.read(range(8))
    for number, image in enumerate(test[:7]):
        assert image[:15, 4 * number + 1 : 4 * number + 3].min() == 255  # ink is white
        assert image[17:].max() == 0
    padded = open_splits(DataSettings("omniglot", str(root)), 32, 1).test.read(range(8))
    np.testing.assert_array_equal(padded[:, 2:30, 2:30], test)


def test_each_training_image_is_in_one_split(archives: list[Path], tmp_path: Path) -> None:
    convert(archives, tmp_path)
    parts = [np.load(tmp_path / f"omniglot-{part}.npy") for part in ("train", "valid")]
    every = np.concatenate(parts)
    order = np.random.RandomState(123).permutation(12)
    strokes = every[:, 5].argmax(axis=1).ravel()  # the column where the stroke begins
    np.testing.assert_array_equal(np.argsort(order % 7, kind="stable"), np.argsort(strokes, kind="stable"))


def test_the_real_counts_are_the_published_ones() -> None:
    assert [each.characters * each.drawings for each in (BACKGROUND, EVALUATION)] == [19_280, 13_180]
    assert MAT_IMAGES == {"data": 24_345, "testdata": 8_070}


def test_columns_become_upright_characters(tmp_path: Path) -> None:
    picture = np.zeros((28, 28))
    picture[3, 5:20] = 1.0  # a horizontal stroke near the top
    levels = np.repeat(picture.flatten(order="F")[:, None], 12, axis=1)
    convert_mat(write_mat(tmp_path / "chardata.mat", data=levels), tmp_path / "root", N_IMAGES, held_out=2)
    train, test = (np.load(tmp_path / "root" / f"omniglot-{part}.npy") for part in ("train", "test"))
    np.testing.assert_array_equal(train[0, :, :, 0], picture * 255)
    expected = LEVELS[:, 12].reshape(28, 28, order="F")
    assert np.abs(test[0, :, :, 0] / 255 - expected).max() <= 0.5 / 255 + 1e-12


def test_a_finished_conversion_is_kept_and_another_source_refused(archives: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    convert(archives, root)
    before = (root / "omniglot-train.npy").stat().st_mtime_ns
    convert(archives, root)
    assert (root / "omniglot-train.npy").stat().st_mtime_ns == before
    mat = write_mat(tmp_path / "chardata.mat")
    with refused("omniglot-source.json", "another source than chardata.mat", "delete it"):
        convert_mat(mat, root, N_IMAGES, held_out=2)
    (root / "omniglot-source.json").unlink()
    assert sum(convert_mat(mat, root, N_IMAGES, held_out=2).values()) == 20


def test_a_conversion_that_was_cut_is_done_again(archives: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    convert(archives, root)
    (root / "omniglot-test.npy").unlink()  # a record of complete files must not hide this
    whole = archives[1].read_bytes()
    archives[1].write_bytes(whole[:400])
    with pytest.raises(InputError):
        convert(archives, root)
    assert not (root / "omniglot-source.json").exists()
    archives[1].write_bytes(whole)
    assert sum(convert(archives, root).values()) == 20


@pytest.mark.parametrize(
    ("characters", "each", "words"),
    [
        ({"Greek": 3}, 4, "holds 1 alphabets instead of 2"),
        ({"Greek": 1, "Latin": 1}, 4, "holds 2 characters instead of 3"),
        ({"Greek": 2, "Latin": 1}, 3, "holds 3 drawings of Greek/character01 instead of 4; 3 of 3 characters"),
        ({}, 4, "holds 0 alphabets instead of 2"),
    ],
)
def test_missing_drawings_are_counted(
    archives: list[Path], tmp_path: Path, characters: dict[str, int], each: int, words: str
) -> None:
    write_zip(archives[0], drawings("images_background", characters, each))
    with refused(str(archives[0]), words, "fetch it again"):
        convert(archives, tmp_path / "root")
    assert not (tmp_path / "root").exists()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 9] ^= 255  # inside the pixels of the first drawing
    path.write_bytes(content)


def mark_as_encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def first_drawing(content: bytes, packed: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    """Change the content of the first drawing, and how the archive packs its files."""
    files = drawings("images_background", CHARACTERS)
    return lambda path: write_zip(path, files | {next(iter(files)): content}, packed) and None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is cut short or not a zip archive"),
        (lambda path: path.write_text("<html>"), "is cut short or not a zip archive"),
        (flip_a_byte, "cannot be read"),
        (mark_as_encrypted, "cannot be read"),
        (first_drawing(bytes(10_000_000)), "would unpack to 10,000,000 bytes"),
        (first_drawing(b"x", zipfile.ZIP_LZMA), "is packed in a way"),
        (first_drawing(b"no image"), "is no PNG image"),
        (first_drawing(saved(Image.new("1", (28, 28)))), "has 28×28 pixels instead of 105×105"),
        (first_drawing(saved(Image.new("1", (20_000, 20_000)))), "has 20000×20000 pixels|cannot be read"),
        (first_drawing(drawing(0)[:60]), "cannot be read"),
    ],
    ids=["cut", "page", "CRC", "encrypted", "bomb", "LZMA", "no image", "size", "huge image", "cut image"],
)
def test_a_damaged_archive_is_named(
    archives: list[Path], tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    write_zip(archives[0], drawings("images_background", CHARACTERS), zipfile.ZIP_STORED)
    damage(archives[0])
    with pytest.raises(InputError, match=rf"^{archives[0]}.*({words}).*: fetch it again from") as caught:
        convert(archives, tmp_path / "root")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "root").exists()


def test_names_that_lead_out_of_the_archive_are_left_out(archives: list[Path], tmp_path: Path) -> None:
    extra = {
        "../Evil/character01/0001_01.png": drawing(0),
        "/Evil/character01/0001_02.png": drawing(0),
        "__MACOSX/images_background/Greek/character01/._0001_01.png": b"",
        "images_background/readme.png": b"no drawing",
    }
    write_zip(archives[0], drawings("images_background", CHARACTERS) | extra)
    assert sum(convert(archives, tmp_path / "root").values()) == 20


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"testdata": None}, "has no variable 'testdata', only: data, target"),
        ({"data": LEVELS}, "'data' has the shape (784, 20) instead of (784, 12)"),
        ({"data": LEVELS[:, :12].T}, "'data' has the shape (12, 784)"),
        ({"data": LEVELS[:, :12] + 0.5}, "'data' holds other values than numbers from 0 to 1"),
        ({"data": np.full((784, 12), np.nan)}, "'data' holds other values"),
    ],
)
def test_a_foreign_mat_file_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = write_mat(tmp_path / "chardata.mat", **changes)
    with refused(str(path), words, "fetch it again"):
        convert_mat(path, tmp_path / "root", N_IMAGES, held_out=2)
    assert not (tmp_path / "root").exists()
