"""Rows of pictures with a label each, as one PNG.

Shapes: B pictures in a row, C channels (1 or 3), H W resolution.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vdvae_lr.evaluation.images import Pictures
from vdvae_lr.whole_file import write_whole

MIN_TILE = 64  # pixels: smaller pictures are enlarged by a whole factor, so that a pixel stays a square
_GAP = 2
_MARGIN = 8
_FONT_SIZE = 14
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def picture_grid(rows: Sequence[Pictures], labels: Sequence[str]) -> Image.Image:
    """One RGB picture: row i shows `rows[i]` (B, H, W, C) uint8 beside `labels[i]`; rows may differ in B.

    Raises:
        ValueError: no rows, or another number of labels.
    """
    if not rows or len(rows) != len(labels):
        raise ValueError(f"{len(rows)} rows of pictures need as many labels, not {len(labels)}")
    font = ImageFont.load_default(size=_FONT_SIZE)
    left = 2 * _MARGIN + math.ceil(max(font.getlength(label) for label in labels))
    strips = [_strip(row) for row in rows]
    width = left + max(strip.shape[1] for strip in strips) + _MARGIN
    height = 2 * _MARGIN + sum(strip.shape[0] + _GAP for strip in strips) - _GAP
    grid = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(grid)
    top = _MARGIN
    for strip, label in zip(strips, labels, strict=True):
        grid.paste(Image.fromarray(strip), (left, top))
        draw.text((_MARGIN, top + strip.shape[0] / 2), label, fill=_INK, font=font, anchor="lm")
        top += strip.shape[0] + _GAP
    return grid


def _strip(pictures: Pictures) -> Pictures:
    """(B, H, W, C) → the row (H', W', 3), enlarged and with gaps of paper."""
    factor = max(1, math.ceil(MIN_TILE / pictures.shape[1]))
    colour = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    tiles = colour.repeat(factor, axis=1).repeat(factor, axis=2)
    padded = np.pad(tiles, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=_PAPER[0])
    return np.concatenate(list(padded), axis=1)[:, :-_GAP]


def save_png(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, whole or not at all, making the folder where needed.

    Raises:
        InputError: the folder cannot be written to.
    """
    content = BytesIO()
    image.save(content, format="PNG")
    write_whole(path, content.getvalue())
