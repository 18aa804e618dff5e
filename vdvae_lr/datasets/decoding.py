"""One image file of any usual kind to a square array of the model's size.

The table in docs/own_data.md says what is done with each kind of file; a test holds the two together.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from vdvae_lr.datasets.deep_levels import refuse_what_pillow_misreads, sixteen_bits
from vdvae_lr.datasets.png_repair import SIGNATURE, without_refused_chunks
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.datasets.srgb import ColourChange, to_srgb
from vdvae_lr.datasets.transparency import on_white, split_transparency

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff"})
FORMATS = "PNG, JPEG, WebP, BMP or TIFF"
# Only these decoders look at a file's content, so a file cannot reach Pillow's rarer, less tested ones by its bytes.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_DEEP_LAYOUTS = (";12", ";16", ";16B", ";16L", ";16N")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(Exception):
    """The file is no image that can be decoded; the message is the reason alone, without the file's name."""


@dataclass(frozen=True)
class StoredImage:
    """What a file holds, where that is not simply the picture."""

    width: int
    """Seen upright."""
    height: int
    """Seen upright."""
    mode: str
    """Pillow's, of the pixels in the file."""
    is_deep: bool
    """Whether the levels have 16 bits (or 12)."""
    colours: ColourChange
    has_transparency: bool
    """Whether any pixel lets the white ground through."""
    frames: int | None
    """How many pictures, of which the first is taken; None: several (TIFF's pages are not counted)."""
    is_turned: bool
    """Whether the picture had to be turned or mirrored to be upright."""


@dataclass(frozen=True)
class DecodedImage:
    """A picture of the model's size, and what its file holds."""

    pixels: Pixels
    """(image_size, image_size, channels) uint8."""
    stored: StoredImage


def decode_image(file: Path | IO[bytes], image_size: int, channels: int) -> Pixels:
    """As `decode`: the pixels alone."""
    return decode(file, image_size, channels).pixels


def decode(file: Path | IO[bytes], image_size: int, channels: int) -> DecodedImage:
    """The upright image's central square in sRGB, resized with antialiasing.

    `channels` is 1 (grey) or 3 (RGB). Transparent pixels are laid on white. Smaller images are enlarged.

    Raises:
        UnreadableImageError: text, cut files, levels whose white is unknown, and images so large that they may be
            an attack.
    """
    if isinstance(file, Path):
        try:
            with file.open("rb") as opened:
                return decode(opened, image_size, channels)
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from error
    picture, stored = _picture(file)
    flat = picture.convert("L" if channels == 1 else "RGB")
    square = ImageOps.fit(flat, (image_size, image_size), Image.Resampling.LANCZOS)
    return DecodedImage(np.asarray(square, dtype=np.uint8).reshape(image_size, image_size, channels), stored)


def _picture(file: IO[bytes]) -> tuple[Image.Image, StoredImage]:
    """The whole picture, upright, as L or RGB in sRGB; raises `UnreadableImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd metadata, which does not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _read_or_repair(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(_bomb_words(error)) from error
    except UnidentifiedImageError as error:  # its message names an object of Python
        raise UnreadableImageError("its content is damaged, or of a kind that is not read") from error
    except Exception as error:  # decoders fail in many ways on damaged files: OSError, SyntaxError, struct.error, …
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _read_or_repair(file: IO[bytes]) -> tuple[Image.Image, StoredImage]:
    try:
        return _read(file, {})
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as refusal:
        file.seek(0)
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise
        try:
            return _read(*without_refused_chunks(file))
        except Exception:  # then it is not the side chunks
            raise refusal from None


def _read(file: IO[bytes], info: Mapping[str, Any]) -> tuple[Image.Image, StoredImage]:
    """`info` goes before what Pillow finds in the file."""
    with Image.open(file, formats=_FORMATS) as opened:
        layout = _layout(opened)
        frames, is_turned = _frames(opened), False
        if isinstance(opened, TiffImagePlugin.TiffImageFile):
            refuse_what_pillow_misreads(opened, layout)
            is_turned = opened.tag_v2.get(ExifTags.Base.Orientation) in _TURNS
        opened.load()
        opened.info.update(info)
        turn = _turn(opened)
        colours, opacity = split_transparency(opened, layout)
        if colours.mode.startswith(("I", "F")):
            colours = sixteen_bits(colours)
        colours, change = to_srgb(colours, opened.info)
        picture = on_white(colours, opacity)
        picture = picture if turn is None else picture.transpose(turn)
        return picture, StoredImage(
            width=picture.width,
            height=picture.height,
            mode="LA" if layout.startswith("LA;16") else opened.mode,
            is_deep=layout.endswith(_DEEP_LAYOUTS) and layout != "BGR;16",  # BMP's, of 5, 6 and 5 bits
            colours=change,
            has_transparency=opacity is not None,
            frames=frames,
            is_turned=is_turned or turn is not None,
        )


def _layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the pixels' form in the file, such as `RGB;16B`; to be asked for before they are loaded."""
    arguments = image.tile[0][3] if image.tile else None
    return str(arguments[0]) if isinstance(arguments, tuple) else arguments or image.mode


def _frames(image: ImageFile.ImageFile) -> int | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.is_animated:
        return None  # to count the pages is to read the whole file, and fails where a later one is damaged
    return int(getattr(image, "n_frames", 1))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright, by its EXIF; None where that is damaged. TIFF is turned by Pillow already."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF is written by cameras and editors of every quality
        return None


def _bomb_words(error: Exception) -> str:
    pixels = re.search(r"\d+", str(error))
    return (
        f"it has {int(pixels[0]) if pixels else 0:,} pixels, and more than {Image.MAX_IMAGE_PIXELS:,} may be a "
        "decompression bomb; reduce it first"
    )
