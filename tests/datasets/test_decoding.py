"""One image file to one array: modes, cut and size, and what is no image. `test_kinds_of_files.py` has the colours."""

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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_usual_mode_becomes_grey_or_colour(mode: str, channels: int):
    white = Image.new("RGBA", (9, 9), "white").convert(mode)
    decoded = decode_image(saved(white), 6, channels)
    assert decoded.shape == (6, 6, channels)
    assert decoded.dtype == np.uint8
    assert decoded.min() == 255


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
