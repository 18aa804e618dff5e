"""Pictures in a report: the same pixels where that is short, small ones where it is not, and never a failure."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reported_folders import write_picture

from vdvae_lr.report.content import Figure
from vdvae_lr.report.pictures import picture_figure


def opened(figure: Figure) -> tuple[Image.Image, int]:
    """The picture in a figure, and its length in bytes."""
    kind, _, text = figure.source.partition(",")
    assert kind == "data:image/webp;base64"
    content = base64.b64decode(text)
    return Image.open(io.BytesIO(content)), len(content)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_small_pictures_are_kept_exactly(tmp_path: Path, mode: str) -> None:
    path = write_picture(tmp_path / "picture.png", (101, 50), mode)
    figure = picture_figure(path, "title", "text")
    image, _ = opened(figure)
    with Image.open(path) as original:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(original.convert("RGB")))
    assert (figure.width, figure.height, figure.alt, figure.caption) == (101, 50, "title. text", "text")


@pytest.mark.parametrize("size", [(3000, 500), (900, 900)])
def test_large_pictures_are_made_short(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    image, length = opened(picture_figure(tmp_path / "picture.png", "title", "text"))
    assert max(image.size) == min(max(size), 2048)
    assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.01)
    assert length < (tmp_path / "picture.png").stat().st_size / 4


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut"])
def test_a_damaged_picture_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "<b>.png"
    path.write_bytes(content)
    figure = picture_figure(path, "title", "text")
    assert figure == Figure("title", caption="<b>.png is damaged: it cannot be read as a picture.")


def test_a_cut_picture_is_a_sentence(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "picture.png", (200, 200))
    path.write_bytes(path.read_bytes()[:-300])
    assert "is damaged" in picture_figure(path, "title", "text").caption
