"""Rows of pictures with a label each, and headers where columns mean something, as one PNG.

Shapes: B pictures in a row, C channels (1 or 3), H W resolution.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vdvae_lr.errors import InputError
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.pictures.images import Pictures

MIN_TILE = 64  # pixels: smaller pictures are enlarged by a whole factor, so that a pixel stays a square
LARGEST_GRID = 64_000_000  # pixels; Pillow, for one, warns of larger pictures than 89 million
_GAP = 2
_MARGIN = 8
_FONT_SIZE = 14
_LINE = 18  # from one line of a header to the next
_LONGEST_LABEL = 60  # characters
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def picture_grid(
    rows: Sequence[Pictures], labels: Sequence[str], columns: Sequence[str] = (), title: str = ""
) -> Image.Image:
    """One RGB picture: row i shows `rows[i]` (B, H, W, C) uint8 beside `labels[i]`; rows may differ in B.

    Args:
        rows: the pictures.
        labels: one for each row.
        columns: headers above the columns, from the left, of any number of lines; the columns spread where a header is
            wider than a picture.
        title: above everything.

    Raises:
        ValueError: no rows, or another number of labels.
    """
    if not rows or len(rows) != len(labels):
        raise ValueError(f"{len(rows)} rows of pictures need as many labels, not {len(labels)}")
    labels = [drawable(label) for label in labels]
    columns = ["\n".join(map(drawable, text.split("\n"))) for text in columns]
    title = drawable(title, longest=None)
    tiles = [_tiles(row) for row in rows]
    layout = _Layout.of(tiles, labels, columns, title)
    grid = Image.new("RGB", (layout.width, layout.height), _PAPER)
    draw = ImageDraw.Draw(grid)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=layout.font, anchor="la")
    top = layout.top
    for number, text in enumerate(columns):
        middle = layout.left + number * layout.pitch + layout.tile / 2
        for above, line in enumerate(reversed(text.split("\n"))):
            place = (middle, top - _MARGIN // 2 - above * _LINE)
            draw.text(place, line, fill=_INK, font=layout.font, anchor="md")
    for row, label in zip(tiles, labels, strict=True):
        for number, tile in enumerate(row):
            grid.paste(Image.fromarray(tile), (layout.left + number * layout.pitch, top))
        draw.text((_MARGIN, top + row.shape[1] / 2), label, fill=_INK, font=layout.font, anchor="lm")
        top += row.shape[1] + _GAP
    return grid


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels."""

    font: _Font
    left: int
    """Of the first column."""
    top: int
    """Of the first row."""
    tile: int
    """Width of the widest picture."""
    pitch: int
    """From one column to the next."""
    width: int
    height: int

    @staticmethod
    def of(tiles: Sequence[Pictures], labels: Sequence[str], columns: Sequence[str], title: str) -> "_Layout":
        font = ImageFont.load_default(size=_FONT_SIZE)
        tile = max(row.shape[2] for row in tiles)
        headers = [math.ceil(max(font.getlength(line) for line in text.split("\n"))) for text in columns]
        lines = max((1 + text.count("\n") for text in columns), default=0)
        overhangs = [max(header - tile, 0) // 2 for header in headers] or [0]
        left = 2 * _MARGIN + math.ceil(max(font.getlength(label) for label in labels)) + overhangs[0]
        pitch = max(tile, *(header + _MARGIN for header in headers), 0) + _GAP
        top = _MARGIN + bool(title) * (_FONT_SIZE + _MARGIN) + bool(columns) * (lines * _LINE + _MARGIN // 2)
        right = left + (max(len(row) for row in tiles) - 1) * pitch + tile + overhangs[-1]
        width = max(right, _MARGIN + math.ceil(font.getlength(title))) + _MARGIN
        height = top + sum(row.shape[1] + _GAP for row in tiles) - _GAP + _MARGIN
        return _Layout(font, left, top, tile, pitch, width, height)


def check_grid_fits(rows: int, columns: int, side: int) -> None:
    """Refuse a grid that few programs would open; raises InputError before anything is computed for it."""
    tile = side * _enlargement(side) + _GAP
    if rows * columns * tile**2 > LARGEST_GRID:
        raise InputError(
            f"a grid of {rows * columns:,} pictures of {side}x{side} would be too large to open; ask for fewer, or "
            "for single files with --files."
        )


def drawable(text: str, longest: int | None = _LONGEST_LABEL) -> str:
    """A label in the letters that the font has (ASCII), cut in its middle where it is longer than `longest`."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in plain)
    if longest is None or len(plain) <= longest:
        return plain
    half = (longest - 3) // 2
    return f"{plain[:half]}...{plain[-half:]}"


def _enlargement(side: int) -> int:
    return max(1, math.ceil(MIN_TILE / side))


def _tiles(pictures: Pictures) -> Pictures:
    """(B, H, W, C) → (B, H', W', 3), enlarged."""
    factor = _enlargement(pictures.shape[1])
    colour = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    return colour.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, whole or not at all, making the folder where needed.

    Raises:
        InputError: the folder cannot be written to.
    """
    content = BytesIO()
    image.save(content, format="PNG")
    write_whole(path, content.getvalue())
