"""One image file to one array: modes, depth, transparency, orientation, cut and size."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdvae_lr.datasets.decoding import UnreadableImageError, decode_image


def saved(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def random_rgb(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_of_the_right_size_is_unchanged():
    pixels = random_rgb(24, 24)
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(pixels)), 24, 3), pixels)


def test_the_central_square_is_kept():
    pixels = random_rgb(10, 30)
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(pixels)), 10, 3), pixels[:, 10:20])


def test_shrinking_averages_instead_of_picking_pixels():
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = decode_image(saved(Image.fromarray(board)), 8, 1)
    assert np.abs(small.astype(int) - 127.5).max() < 10


def test_grey_of_16_bits_is_scaled_and_not_clipped():
    levels = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(levels)), 2, 1)[..., 0], [[0, 100], [200, 255]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_usual_mode_becomes_grey_or_colour(mode: str, channels: int):
    white = Image.new("RGBA", (9, 9), "white").convert(mode)
    decoded = decode_image(saved(white), 6, channels)
    assert decoded.shape == (6, 6, channels)
    assert decoded.dtype == np.uint8
    assert decoded.min() == 255


def test_transparent_pixels_lie_on_white():
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert decode_image(saved(half), 4, 3).min() == 255
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30])
    assert decode_image(saved(palette, transparency=0), 4, 3).min() == 255


def test_a_photo_is_turned_upright_by_its_exif_orientation():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    decoded = decode_image(saved(Image.fromarray(pixels), exif=exif), 8, 3)
    np.testing.assert_array_equal(decoded, pixels[::-1])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_other_formats(kind: str):
    decoded = decode_image(saved(Image.new("RGB", (12, 12), (200, 100, 50)), kind), 6, 3)
    assert np.abs(decoded.astype(int) - [200, 100, 50]).max() <= 4


def test_text_cut_files_and_missing_files_are_unreadable(tmp_path: Path):
    whole = saved(Image.fromarray(random_rgb(40, 40))).getvalue()
    for content in (b"some text", b"", whole[: len(whole) // 2], whole[:20]):
        with pytest.raises(UnreadableImageError):
            decode_image(io.BytesIO(content), 8, 3)
    with pytest.raises(UnreadableImageError):
        decode_image(tmp_path / "none.png", 8, 3)


def test_a_decompression_bomb_is_unreadable(monkeypatch):
    bomb = saved(Image.new("L", (60, 60))).getvalue()
    for limit in (3000, 1000):  # Pillow warns above its limit and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UnreadableImageError, match="decompression bomb"):
            decode_image(io.BytesIO(bomb), 8, 1)
