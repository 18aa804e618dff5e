"""Greys of more than eight bits: PNG's and TIFF's 16 bits, and TIFF's 12 bits and floating-point numbers."""

import numpy as np
from PIL import Image, TiffImagePlugin

_WHITE_IS_ZERO = 0
_PLANES_APART = 2


def sixteen_bits(image: Image.Image) -> Image.Image:
    """A loaded grey image of mode I;16…, I or F as I;16, where 0 is black and 65,535 white.

    Raises:
        ValueError: numbers whose white is not known: 32-bit or signed ones, or floats outside 0 … 1.
    """
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    levels = np.asarray(image)
    if image.mode == "I":
        raise ValueError("its greys are 32-bit or signed numbers, whose white is not known; save it with 8 or 16 bits")
    if image.mode == "F":
        if not (levels.min() >= 0 and levels.max() <= 1):  # also refuses NaN
            raise ValueError("its floating-point levels are not from 0 (black) to 1 (white); save it with 8 or 16 bits")
        white = 1
    else:
        white = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    if white != 65535:
        levels = np.round(levels * (65535 / white))
    levels = levels.astype(np.uint16)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits only
        levels = 65535 - levels
    return Image.fromarray(levels)


def eight_bits(image: Image.Image) -> Image.Image:
    """I;16 as L, scaled (Pillow's own conversion would clip); other modes as they are."""
    if image.mode != "I;16":
        return image
    return Image.fromarray(((np.asarray(image, dtype=np.uint32) + 128) // 257).astype(np.uint8))


def refuse_what_pillow_misreads(image: TiffImagePlugin.TiffImageFile, layout: str) -> None:
    """Raise ValueError for the TIFF files that Pillow (11 to 13) reads wrongly without an error.

    To be called before the pixels are loaded; `layout` is Pillow's name of the pixels' form in the file.
    """
    codec, tags = image.tile[0][0], image.tag_v2
    deep = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    if deep and codec == "raw" and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _PLANES_APART:
        raise ValueError("its colours of 16 bits lie in separate planes without compression; save it with 8 bits")
    if layout == "F;32BF" and codec == "libtiff":
        raise ValueError("its floating-point levels are compressed in big-endian order; save it with 8 or 16 bits")
    if layout == "YCbCr" and tags.get(TiffImagePlugin.YCBCRSUBSAMPLING, (2, 2)) != (1, 1):
        raise ValueError("its colours are subsampled without compression; save it as RGB")
