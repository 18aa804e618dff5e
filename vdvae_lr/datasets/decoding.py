"""One image file of any usual kind to a square array of the model's size."""

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from vdvae_lr.datasets.sources import Pixels

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
# Only these decoders look at a file's content, so a file cannot reach Pillow's rarer, less tested ones by its bytes.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


class UnreadableImageError(Exception):
    """The file is no image that can be decoded; the message is the reason alone, without the file's name."""


def decode_image(file: Path | IO[bytes], image_size: int, channels: int) -> Pixels:
    """The upright image's central square, resized with antialiasing: (image_size, image_size, channels) uint8.

    `channels` is 1 (grey) or 3 (RGB). Transparent pixels are laid on white. Smaller images are enlarged.
    Raises `UnreadableImageError` for text, cut files, and images so large that they may be an attack.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd metadata, which does not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as opened:
                upright = ImageOps.exif_transpose(opened)
                flat = _without_transparency(_eight_bits(upright)).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # decoders fail in many ways on damaged files: OSError, SyntaxError, struct.error, …
        raise UnreadableImageError(str(error) or type(error).__name__) from error
    square = ImageOps.fit(flat, (image_size, image_size), Image.Resampling.LANCZOS)
    return np.asarray(square, dtype=np.uint8).reshape(image_size, image_size, channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits on the scale 0 … 255 (Pillow's own conversion would clip them instead)."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.round(np.asarray(image, dtype=np.float64).clip(0, 65535) / 257.0).astype(np.uint8))


def _without_transparency(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
