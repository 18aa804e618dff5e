"""Turn the pixels of any image file into 8-bit grey or RGB in sRGB, on white.

This is about depth, transparency and colour: embedded profiles, the gamma of a PNG file, greys of more than 8 bits.
"""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

ColourChange = Literal["none", "profile", "gamma", "unusable profile"]
"""What was done to the colours: nothing (they are sRGB), or converted; an unusable profile is ignored."""

_PROFILES_KEPT = 64  # a folder has the profiles of a few cameras and programs; one transform takes up to 1 MB
_ROUNDING = 1  # of 255 levels: many profiles are sRGB under another name, and move no colour by more
_USUAL_GAMMA = 1 / 2.2
_GAMMA_TOLERANCE = 0.05  # libpng's own; nobody sees a smaller difference
_KEY_SCALES = {"L;2": 85, "L;4": 17}  # Pillow scales such levels to 0 … 255, but not the transparent level
_WHITE_IS_ZERO = 0
_SEPARATE_PLANES = 2


def flat_srgb(image: Image.Image, layout: str) -> tuple[Image.Image, ColourChange, bool]:
    """Convert a loaded image of any mode to L or RGB in sRGB on white.

    `layout` is Pillow's name for the form of the pixels in the file, such as `RGB;16B`. Also returns what was done to
    the colours, and whether any pixel was transparent. Raises ValueError if the levels' white is not known, or a
    palette is missing.
    """
    colours, opacity = _split_transparency(image, layout)
    if opacity is not None and opacity.getextrema()[0] == 255:
        opacity = None
    if colours.mode.startswith(("I", "F")):
        colours = _sixteen_bits(colours)
    colours, change = _to_srgb(colours, image.info)
    if opacity is not None:
        layer = colours.convert("RGB")
        layer.putalpha(opacity)  # blended by sRGB levels, as browsers do
        colours = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return colours, change, opacity is not None


def refuse_misread_tiff(image: TiffImagePlugin.TiffImageFile, layout: str) -> None:
    """Raise ValueError for TIFF files that Pillow (11 to 13) misreads silently. Call it before pixels are loaded."""
    codec, tags = image.tile[0][0], image.tag_v2
    deep = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    if deep and codec == "raw" and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _SEPARATE_PLANES:
        raise ValueError("its colours of 16 bits lie in separate planes without compression; save it with 8 bits")
    if layout == "F;32BF" and codec == "libtiff":
        raise ValueError("its floating-point levels are compressed in big-endian order; save it with 8 or 16 bits")
    if layout == "YCbCr" and tags.get(TiffImagePlugin.YCBCRSUBSAMPLING, (2, 2)) != (1, 1):
        raise ValueError("its colours are subsampled without compression; save it as RGB")


def _split_transparency(image: Image.Image, layout: str) -> tuple[Image.Image, Image.Image | None]:
    """The colours without transparency, and the opacity as L (0: transparent) or None."""
    if image.mode in ("P", "PA"):
        if image.palette is None:
            raise ValueError("its palette is missing")
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if layout.startswith("LA;16"):  # Pillow reads it as RGBA
        image = image.convert("LA")
    if image.mode in ("La", "RGBa"):  # colours multiplied by the opacity
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    colours = image.convert("L") if image.mode == "1" else image
    key = image.info.get("transparency")
    return colours, None if key is None else _opacity_by_key(colours, key, layout)


def _opacity_by_key(image: Image.Image, key: int | tuple[int, ...], layout: str) -> Image.Image:
    """The opacity of a PNG in which one colour is transparent; `key` is that colour as the file has it."""
    wanted = np.asarray(key)
    if layout == "1":
        wanted = 255 * (wanted > 0)
    elif layout.startswith("RGB;16"):
        wanted = wanted >> 8  # Pillow reads the upper 8 bits of 16-bit colours
    else:
        wanted = wanted * _KEY_SCALES.get(layout, 1)
    other = np.asarray(image) != wanted
    return Image.fromarray((other.any(axis=-1) if other.ndim == 3 else other).astype(np.uint8) * np.uint8(255))


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Convert a loaded grey image of mode I;16…, I or F to I;16, where 0 is black and 65,535 white."""
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


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert I;16 to L and CMYK to RGB; return other modes unchanged."""
    if image.mode == "CMYK":
        return image.convert("RGB")
    if image.mode != "I;16":
        return image
    # Pillow's own conversion of I;16 clips instead of scaling.
    return Image.fromarray(((np.asarray(image, dtype=np.uint32) + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image, info: Mapping[Any, Any]) -> tuple[Image.Image, ColourChange]:
    """Convert an image without transparency (L, I;16, RGB, CMYK, LAB or YCbCr) to L or RGB in sRGB."""
    if image.mode not in ("L", "I;16", "RGB", "CMYK"):
        return image.convert("RGB"), "none"  # Lab defines its colours itself
    if "icc_profile" in info:
        return _by_profile(image, info["icc_profile"])
    if info.get("gamma") and "srgb" not in info:
        return _by_gamma(image, info["gamma"])
    return _eight_bits(image), "none"


def _by_profile(image: Image.Image, profile: object) -> tuple[Image.Image, ColourChange]:
    """A grey image may have an RGB profile, which Pillow keeps when it turns a photo grey: it holds for R = G = B."""
    grey = image.mode in ("L", "I;16")
    if grey and (table := _grey_table(profile)) is not None:
        if np.abs(table[::257].astype(np.int16) - np.arange(256)).max() <= _ROUNDING:
            return _eight_bits(image), "none"
        levels = np.asarray(image)
        return Image.fromarray(table[levels if image.mode == "I;16" else levels.astype(np.uint16) * 257]), "profile"
    given = _eight_bits(image).convert("RGB") if grey else image
    transform = _transform(profile, given.mode)
    if isinstance(transform, str):
        return _eight_bits(image), "none" if transform == "sRGB" else "unusable profile"
    return transform.apply(given), "profile"


@lru_cache(maxsize=_PROFILES_KEPT)
def _transform(profile: object, mode: str) -> ImageCms.ImageCmsTransform | Literal["sRGB", "unusable"]:
    """The transform from RGB or CMYK pixels in the profile's colours to RGB in sRGB."""
    transform = _build_transform(profile, mode)
    if transform is None:
        return "unusable"
    if mode == "RGB":
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        moved = np.asarray(transform.apply(Image.fromarray(colours)), dtype=np.int16) - colours
        if np.abs(moved).max() <= _ROUNDING:
            return "sRGB"
    return transform


@lru_cache(maxsize=_PROFILES_KEPT)
def _grey_table(profile: object) -> NDArray[np.uint8] | None:
    """The sRGB level of each of 65,536 greys; None if the profile is not one for greys.

    littleCMS is up to ten levels off in dark greys unless it is told not to optimise. Then it is slow, so this asks it
    once for all greys.
    """
    transform = _build_transform(profile, "I;16", ImageCms.Flags.NOOPTIMIZE)
    if transform is None:
        return None
    return np.asarray(transform.apply(Image.fromarray(np.arange(65536, dtype=np.uint16)[None])))[0, :, 1]


def _build_transform(
    profile: object, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> ImageCms.ImageCmsTransform | None:
    """The transform to RGB in sRGB; None if the profile is damaged or for another kind of pixels.

    Relative colorimetric with black-point compensation: colours that sRGB has stay as they are, and black stays black.
    """
    if not isinstance(profile, bytes):  # Pillow's None for a profile that it could not unpack; odd TIFF tags
        return None
    try:
        return ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=flags | ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ValueError):
        return None


def _by_gamma(image: Image.Image, gamma: float) -> tuple[Image.Image, ColourChange]:
    """Stored levels are light to the power of `gamma`; programs that mean sRGB write 1/2.2."""
    if abs(gamma / _USUAL_GAMMA - 1) <= _GAMMA_TOLERANCE:
        return _eight_bits(image), "none"
    if image.mode == "I;16":
        return Image.fromarray(_levels_from_gamma(np.asarray(image) / 65535, gamma)), "gamma"
    table = _levels_from_gamma(np.arange(256) / 255, gamma).tolist()
    return image.point(table * len(image.getbands())), "gamma"


def _levels_from_gamma(stored: NDArray[np.float64], gamma: float) -> NDArray[np.uint8]:
    """sRGB levels 0 … 255 of stored levels 0 … 1."""
    light = stored ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
