"""Own image files and arrays: what is read, which changes are stated, and what is refused."""

import dataclasses
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from kinds_of_colour import SRGB_PROFILE
from made_images import chunk, png, png16, tiff
from made_images import saved as image_bytes
from made_profiles import SRGB, grey_profile, rgb_profile
from PIL import Image
from refusals import refused
from small_config import SMALL

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.image_files import (
    find_image_files,
    one_picture_of,
    pictures_of,
    read_image,
    single_picture,
)

COLOUR, GREY = VDVAE(SMALL), VDVAE(dataclasses.replace(SMALL, image_channels=1))


def saved(path: Path, mode: str, size: tuple[int, int], **options: object) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    whole = Image.fromarray(levels)
    (whole if mode == "RGBA" else whole.convert("RGB").convert(mode)).save(path, **options)
    return path


def test_a_pipe_is_no_image_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with refused("pipe.png", "is a pipe, a socket or a device", "name an image file"):
        find_image_files([tmp_path / "pipe.png"])


@pytest.mark.parametrize(("mode", "model"), [("RGB", COLOUR), ("L", GREY)])
def test_an_exact_file_is_read_as_it_is(tmp_path: Path, mode: str, model: VDVAE) -> None:
    path = saved(tmp_path / "a.png", mode, (8, 8))
    read = read_image(path, model, exact=True)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(read.picture, np.asarray(opened).reshape(read.picture.shape))
    assert (read.change, read.picture.shape[-1]) == ("", model.config.image_channels)


@pytest.mark.parametrize(
    ("name", "mode", "size", "model", "change"),
    [
        ("a.png", "RGB", (16, 16), COLOUR, "reduced to 8x8"),
        ("a.png", "RGB", (4, 4), COLOUR, "enlarged to 8x8"),
        ("a.png", "RGB", (12, 8), COLOUR, "cut from 12x8 to its central square"),
        ("a.png", "L", (8, 8), COLOUR, "turned from grey to colour"),
        ("a.png", "RGBA", (8, 8), COLOUR, "laid on white where it is transparent"),
        ("a.png", "P", (8, 8), GREY, "turned from palette to grey"),
        ("a.jpg", "CMYK", (8, 8), COLOUR, "turned from four-ink colour (CMYK) to colour"),
        (
            "a.bmp",
            "RGB",
            (9, 20),
            GREY,
            "cut from 9x20 to its central square, reduced to 8x8 and turned from colour to grey",
        ),
    ],
)
def test_what_is_done_to_a_file_is_said_and_exact_refuses_it(
    tmp_path: Path, name: str, mode: str, size: tuple[int, int], model: VDVAE, change: str
) -> None:
    path = saved(tmp_path / name, mode, size)
    read = read_image(path, model)
    assert (read.change, read.picture.shape) == (change, (8, 8, model.config.image_channels))
    with refused(str(path), f"it would be {change}", "leave out --exact"):
        read_image(path, model, exact=True)


def test_a_grey_of_16_bits_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), 257 * 7, dtype=np.uint16)).save(path)
    read = read_image(path, GREY)
    assert (read.change, set(read.picture.ravel())) == ("turned from 16-bit grey to grey", {7})


FLAT = Image.new("RGB", (8, 8), (200, 60, 40))
OTHER_PAGES = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))] * 2}


@pytest.mark.parametrize(
    ("content", "change"),
    [
        (image_bytes(FLAT, icc_profile=rgb_profile(SRGB, 1.0)), "converted from its colour profile to sRGB"),
        (
            image_bytes(FLAT.convert("L"), icc_profile=grey_profile(1.0)),
            "converted from its colour profile to sRGB and turned from grey to colour",
        ),
        (
            image_bytes(FLAT, icc_profile=b"none"),
            "taken as sRGB (its colour profile is damaged or does not fit)",
        ),
        (
            png(8, 2, bytes(12), chunk(b"gAMA", struct.pack(">I", 100_000))),
            "enlarged to 8x8 and converted from its gamma to sRGB",
        ),
        (image_bytes(FLAT, **OTHER_PAGES), "taken from the first of its 3 pictures"),
        (image_bytes(FLAT, "TIFF", **OTHER_PAGES), "taken from the first of its several pictures"),
        (tiff(2, [8] * 3, bytes(48), t274=[3]), "enlarged to 8x8 and turned upright"),
        (png16(2, 0, 0, 0), "enlarged to 8x8 and turned from 16-bit colour to colour"),
        (
            png16(4, 0, 0),
            "enlarged to 8x8, laid on white where it is transparent and turned from 16-bit grey to colour",
        ),
        (image_bytes(FLAT.convert("RGBA")), ""),
        (image_bytes(FLAT, icc_profile=SRGB_PROFILE), ""),
        (image_bytes(FLAT, "TIFF"), ""),
    ],
)
def test_what_is_done_to_colours_and_pages_is_said(tmp_path: Path, content: bytes, change: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert read_image(path, COLOUR).change == change


def test_a_photo_is_seen_upright(tmp_path: Path) -> None:
    """Orientation 6 means that the stored image has to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", "RGB", (20, 10), exif=exif)
    assert read_image(path, COLOUR).change == "cut from 10x20 to its central square, reduced to 8x8 and turned upright"


def test_files_and_folders_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    names = ["b.png", "a.jpg", "deep/c.png"]
    for name in names:
        saved(tmp_path / name, "RGB", (8, 8))
    found = find_image_files([tmp_path / "deep" / "c.png", tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["deep/c.png", "a.jpg", "b.png", "deep/c.png"]
    assert pictures_of(COLOUR, tmp_path).shape == (3, 8, 8, 3)
    assert pictures_of(COLOUR, str(tmp_path / "b.png")).shape == (1, 8, 8, 3)
    assert pictures_of(COLOUR, [tmp_path / "b.png", tmp_path / "a.jpg"]).shape == (2, 8, 8, 3)


def test_what_is_no_image(tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("no image")
    with refused(str(text), "cannot be read as an image", "give a PNG, JPEG, WebP, BMP or TIFF file"):
        read_image(text, COLOUR)
    with refused("b.png", "does not exist", "name an image file"):
        find_image_files([tmp_path / "b.png"])
    with refused("there are no images", "", "name image files"):
        find_image_files([])
    (tmp_path / "empty").mkdir()
    with refused("empty", "holds no images", "put "):
        find_image_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((2, 8, 9, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((8, 8), np.uint8),
    ],
)
def test_other_arrays(array: np.ndarray) -> None:
    with refused(str(array.shape), str(array.dtype), "uint8 of (B, 8, 8, 3)"):
        pictures_of(COLOUR, array)  # type: ignore[arg-type]


def test_one_picture_alone(tmp_path: Path) -> None:
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for given in (picture, picture[None]):
        np.testing.assert_array_equal(one_picture_of(COLOUR, given), picture[None])
    with refused("2 images", "one is wanted", "name one file"):
        one_picture_of(COLOUR, np.stack([picture, picture]))


def test_single_pictures_keep_their_channels_and_size() -> None:
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for image, mode, levels in (
        (single_picture(picture), "RGB", picture),
        (single_picture(picture[..., :1]), "L", picture[..., 0]),
    ):
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image), levels)
