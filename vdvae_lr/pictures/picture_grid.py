"""Grids of pictures with a label for each row, and optional headers above the columns.

Shapes: B pictures in a row, C channels (1 or 3), H W resolution.
"""

import math
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vdvae_lr.errors import InputError
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.pictures.images import Pictures

MIN_TILE = 64  # pixels; smaller pictures are enlarged by a whole factor, so that each pixel stays a square
LARGEST_GRID = 64_000_000  # pixels; programs refuse or warn about large pictures (Pillow from 89 million up)
_GAP = 2
_MARGIN = 8
_FONT_SIZE = 14
_LINE = 18  # pixels from one line of a header to the next
_LONGEST_LABEL = 60  # characters
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def picture_grid(
    rows: Sequence[Pictures],
    labels: Sequence[str],
    columns: Sequence[str] = (),
    title: str = "",
    least_tile: int = MIN_TILE,
) -> Image.Image:
    """One RGB picture, in which row i shows `rows[i]` beside `labels[i]`.

    Args:
        rows: the pictures of each row, (B, H, W, C) uint8; rows may differ in B.
        labels: a label for each row.
        columns: headers above the columns, from the left. They may have several lines. If a header is wider than a
            picture, the columns move apart.
        title: a line above everything.
        least_tile: pixels; smaller pictures are enlarged to it by a whole factor.

    Raises:
        ValueError: there are no rows, or the number of labels differs.
    """
    if not rows or len(rows) != len(labels):
        raise ValueError(f"{len(rows)} rows of pictures need as many labels, not {len(labels)}")
    labels, title = [drawable(label) for label in labels], drawable(title, longest=None)
    headers = [[drawable(line) for line in text.split("\n")] for text in columns]
    tiles = [_tiles(row, least_tile) for row in rows]
    font = ImageFont.load_default(size=_FONT_SIZE)
    tile = max(row.shape[2] for row in tiles)  # width of the widest picture
    header_widths = [math.ceil(max(map(font.getlength, lines))) for lines in headers]
    pitch = max(tile, *(width + _MARGIN for width in header_widths), 0) + _GAP  # from one column to the next
    overhangs = [max(width - tile, 0) // 2 for width in header_widths] or [0]
    left = 2 * _MARGIN + math.ceil(max(map(font.getlength, labels))) + overhangs[0]
    right = left + (max(map(len, tiles)) - 1) * pitch + tile + overhangs[-1]
    header_height = max(map(len, headers)) * _LINE + _MARGIN // 2 if headers else 0
    top = _MARGIN + bool(title) * (_FONT_SIZE + _MARGIN) + header_height
    height = top + sum(row.shape[1] + _GAP for row in tiles) - _GAP + _MARGIN
    grid = Image.new("RGB", (max(right, _MARGIN + math.ceil(font.getlength(title))) + _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(grid)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font, anchor="la")
    for column, lines in enumerate(headers):
        for above, line in enumerate(reversed(lines)):
            place = (left + column * pitch + tile / 2, top - _MARGIN // 2 - above * _LINE)
            draw.text(place, line, fill=_INK, font=font, anchor="md")
    for row, label in zip(tiles, labels, strict=True):
        for column, picture in enumerate(row):
            grid.paste(Image.fromarray(picture), (left + column * pitch, top))
        draw.text((_MARGIN, top + row.shape[1] / 2), label, fill=_INK, font=font, anchor="lm")
        top += row.shape[1] + _GAP
    return grid


def check_grid_fits(rows: int, columns: int, side: int) -> None:
    """Refuse a grid of square pictures that few programs would open (raises InputError)."""
    tile = side * _enlargement(side) + _GAP
    if rows * columns * tile**2 > LARGEST_GRID:
        raise InputError(
            f"a grid of {rows * columns:,} pictures of {side}x{side} would be too large to open; ask for fewer, or "
            "for single files with --files."
        )


def drawable(text: str, longest: int | None = _LONGEST_LABEL) -> str:
    """Text in the letters that the font has (ASCII). If it is longer than `longest`, its middle is left out."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in plain)
    if longest is None or len(plain) <= longest:
        return plain
    half = (longest - 3) // 2
    return f"{plain[:half]}...{plain[-half:]}"


def _enlargement(side: int, least_tile: int = MIN_TILE) -> int:
    return max(1, math.ceil(least_tile / side))


def _tiles(pictures: Pictures, least_tile: int) -> Pictures:
    """(B, H, W, C) → (B, H', W', 3), enlarged."""
    factor = _enlargement(pictures.shape[1], least_tile)
    colour = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    return colour.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all, and make its folder if needed (raises InputError if it cannot)."""
    content = BytesIO()
    image.save(content, format="PNG")
    write_whole(path, content.getvalue())
