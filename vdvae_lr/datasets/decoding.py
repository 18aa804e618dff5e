"""Decode one image file of any usual kind to a square array of the model's size.

The table in docs/own_data.md says what is done with each kind of file; a test compares the two.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from vdvae_lr.datasets.colours import ColourChange, flat_srgb, refuse_misread_tiff
from vdvae_lr.datasets.sources import Pixels

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff"})
FORMATS = "PNG, JPEG, WebP, BMP or TIFF"
LARGEST_FILE = 4 * (Image.MAX_IMAGE_PIXELS or 0)
"""Bytes: red, green, blue and opacity of the largest image that is decoded."""
# Only these decoders look at a file's content, so no file can reach Pillow's rarer, less tested decoders.
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
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXEL_CHUNKS = (b"tRNS", b"gAMA")  # optional chunks that change the pixels: without them the picture is wrong
_LONGEST = 16 << 20  # bytes of an optional PNG chunk, and of an unpacked colour profile


class UnreadableImageError(Exception):
    """The file is no image that can be decoded. The message is the reason alone, without the file's name."""


@dataclass(frozen=True)
class DecodedImage:
    """A picture at the model's size, and what its file holds."""

    pixels: Pixels
    """(image_size, image_size, channels) uint8."""
    width: int
    """Width of the stored picture, seen upright."""
    height: int
    """Height of the stored picture, seen upright."""
    mode: str
    """Pillow's mode of the stored pixels."""
    is_deep: bool
    """Whether the stored levels have 12 or 16 bits."""
    colours: ColourChange
    has_transparency: bool
    """Whether any pixel lets the white ground through."""
    frames: int | None
    """Number of pictures in the file, of which the first is taken; None: several, not counted."""
    is_turned: bool
    """Whether the picture had to be turned or mirrored to be upright."""


def decode_image(file: Path | IO[bytes], image_size: int, channels: int) -> Pixels:
    """The pixels of `decode`."""
    return decode(file, image_size, channels).pixels


def decode(file: Path | IO[bytes], image_size: int, channels: int) -> DecodedImage:
    """Read the upright image's central square in sRGB on white, resized with antialiasing; `channels` is 1 or 3.

    Raises:
        UnreadableImageError: the file is no image, is damaged, has levels whose white is unknown, or has so many pixels
            that it may be an attack.
    """
    if isinstance(file, Path):
        try:
            with file.open("rb") as opened:
                return decode(opened, image_size, channels)
        except OSError as error:
            raise UnreadableImageError(error.strerror or str(error)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about odd metadata, which does not touch the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode_or_repair(file, image_size, channels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(_bomb_words(error)) from error
    except UnidentifiedImageError as error:  # its message names an object of Python
        raise UnreadableImageError("its content is damaged, or of a kind that is not read") from error
    except Exception as error:  # on damaged files decoders raise OSError, SyntaxError, struct.error and many others
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def _decode_or_repair(file: IO[bytes], image_size: int, channels: int) -> DecodedImage:
    try:
        return _decode(file, {}, image_size, channels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception as refusal:
        try:
            return _decode(*_without_refused_chunks(file), image_size, channels)
        except Exception:  # it is no PNG file, or its picture itself is damaged
            raise refusal from None


def _decode(file: IO[bytes], info: Mapping[str, Any], image_size: int, channels: int) -> DecodedImage:
    """Decode a file; `info` goes before what Pillow finds beside the pixels."""
    with Image.open(file, formats=_FORMATS) as opened:
        layout = _layout(opened)
        frames, is_turned = _frames(opened), False
        if isinstance(opened, TiffImagePlugin.TiffImageFile):  # Pillow turns TIFF files when it loads them
            refuse_misread_tiff(opened, layout)
            is_turned = opened.tag_v2.get(ExifTags.Base.Orientation) in _TURNS
        opened.load()
        opened.info.update(info)
        turn = _turn(opened)
        picture, change, has_transparency = flat_srgb(opened, layout)
        if turn is not None:
            picture, is_turned = picture.transpose(turn), True
        flat = picture.convert("L" if channels == 1 else "RGB")
        square = ImageOps.fit(flat, (image_size, image_size), Image.Resampling.LANCZOS)
        return DecodedImage(
            np.asarray(square, dtype=np.uint8).reshape(image_size, image_size, channels),
            width=picture.width,
            height=picture.height,
            mode="LA" if layout.startswith("LA;16") else opened.mode,
            is_deep=layout.endswith(_DEEP_LAYOUTS) and layout != "BGR;16",  # BMP's, of 5, 6 and 5 bits
            colours=change,
            has_transparency=has_transparency,
            frames=frames,
            is_turned=is_turned,
        )


def _layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name for the form of the pixels in the file, such as `RGB;16B`. Ask before the pixels are loaded."""
    arguments = image.tile[0][3] if image.tile else None
    return str(arguments[0]) if isinstance(arguments, tuple) else arguments or image.mode


def _frames(image: ImageFile.ImageFile) -> int | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.is_animated:
        return None  # counting the pages reads the whole file, and fails if a later page is damaged
    return int(getattr(image, "n_frames", 1))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright, according to its EXIF data; None if those are damaged."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # cameras and editors write EXIF data of every quality
        return None


def _bomb_words(error: Exception) -> str:
    pixels = re.search(r"\d+", str(error))
    return (
        f"it has {int(pixels[0]) if pixels else 0:,} pixels, and more than {Image.MAX_IMAGE_PIXELS:,} may be a "
        "decompression bomb; reduce it first"
    )


def _without_refused_chunks(file: IO[bytes]) -> tuple[io.BytesIO, dict[str, Any]]:
    """Copy a PNG file without the optional chunks that Pillow refuses: large or damaged texts, dates and profiles.

    Texts are unpacked only as far as Pillow allows, so that they cannot fill the memory. The dictionary holds the
    colour profile as Pillow's `info` would. Raises struct.error or SyntaxError if this is no whole PNG file.
    """
    file.seek(0)
    if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
        raise SyntaxError("no PNG file")
    kept, info = io.BytesIO(), dict[str, Any]()
    kept.write(_PNG_SIGNATURE)
    reader = PngImagePlugin.PngStream(file)
    judge = PngImagePlugin.PngStream(io.BytesIO())  # counts the length of all texts and the frames, as Pillow does
    kind = b""
    while kind != b"IEND":
        kind, _, length = reader.read()
        is_optional = kind[:1].islower() and kind not in _PNG_PIXEL_CHUNKS
        if is_optional and length > _LONGEST:
            file.seek(length + 4, io.SEEK_CUR)
            continue
        content, checksum = file.read(length), file.read(4)
        if kind == b"iCCP":
            info["icc_profile"] = _unpacked_profile(content)
        elif not is_optional or _is_accepted(judge, kind, content, checksum):
            kept.write(struct.pack(">I", length) + kind + content + checksum)
    kept.seek(0)
    return kept, info


def _is_accepted(judge: PngImagePlugin.PngStream, kind: bytes, content: bytes, checksum: bytes) -> bool:
    if struct.pack(">I", zlib.crc32(kind + content)) != checksum:
        return False
    judge.fp = io.BytesIO(content)
    try:
        judge.call(kind, 0, len(content))
    except (AttributeError, EOFError):  # a kind that Pillow skips; a frame of an animation
        return True
    except (ValueError, SyntaxError, IndexError, struct.error, zlib.error):
        return False
    return True


def _unpacked_profile(content: bytes) -> bytes | None:
    """The colour profile in an iCCP chunk; None if it is damaged or too large."""
    _, _, packed = content.partition(b"\0")
    if packed[:1] != b"\0":  # the number of the only way to pack it
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], _LONGEST)
    except zlib.error:
        return None
    return profile if unpacking.eof else None
