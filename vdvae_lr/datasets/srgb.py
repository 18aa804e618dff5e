"""Stored colours as sRGB: what an embedded colour profile, or the gamma of a PNG file, asks for."""

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vdvae_lr.datasets.deep_levels import eight_bits

ColourChange = Literal["none", "profile", "gamma", "unusable profile"]
"""What was done to the colours: nothing (they are sRGB), or converted; an unusable profile is ignored."""

_PROFILES_KEPT = 64  # a folder has the profiles of a few cameras and programs; one transform takes up to 1 MB
_ROUNDING = 1  # levels of 255: the many profiles that are sRGB under any name move no colour by more
_USUAL_GAMMA = 1 / 2.2
_GAMMA_TOLERANCE = 0.05  # libpng's own: a smaller difference cannot be seen


def to_srgb(image: Image.Image, info: Mapping[Any, Any]) -> tuple[Image.Image, ColourChange]:
    """An image without transparency as L or RGB in sRGB.

    Args:
        image: of mode L, I;16 (0 is black and 65,535 white), RGB, CMYK, LAB or YCbCr.
        info: Pillow's, of the file.
    """
    if image.mode not in ("L", "I;16", "RGB", "CMYK"):
        return image.convert("RGB"), "none"  # Lab has its colours defined already
    if "icc_profile" in info:
        return _by_profile(image, info["icc_profile"])
    if info.get("gamma") and "srgb" not in info:
        return _by_gamma(image, info["gamma"])
    return _assumed_srgb(image), "none"


def _by_profile(image: Image.Image, profile: object) -> tuple[Image.Image, ColourChange]:
    """Greys may have an RGB profile (Pillow keeps it when it turns a photo grey): it holds for equal R, G and B."""
    grey = image.mode in ("L", "I;16")
    if grey and (table := _grey_table(profile)) is not None:
        if np.abs(table[::257].astype(np.int16) - np.arange(256)).max() <= _ROUNDING:
            return eight_bits(image), "none"
        levels = np.asarray(image)
        return Image.fromarray(table[levels if image.mode == "I;16" else levels.astype(np.uint16) * 257]), "profile"
    given = eight_bits(image).convert("RGB") if grey else image
    transform = _transform(profile, given.mode)
    if isinstance(transform, str):
        return _assumed_srgb(image), "none" if transform == "sRGB" else "unusable profile"
    return transform.apply(given), "profile"


@lru_cache(maxsize=_PROFILES_KEPT)
def _transform(profile: object, mode: str) -> ImageCms.ImageCmsTransform | Literal["sRGB", "unusable"]:
    """From RGB or CMYK pixels in the profile's colours to RGB in sRGB."""
    transform = _built(profile, mode)
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
    """The sRGB level of each of 65,536 greys; None where it is no profile for greys.

    A table, because littleCMS is up to ten levels off in dark greys unless it is told not to optimise, and then slow.
    """
    transform = _built(profile, "I;16", ImageCms.Flags.NOOPTIMIZE)
    if transform is None:
        return None
    return np.asarray(transform.apply(Image.fromarray(np.arange(65536, dtype=np.uint16)[None])))[0, :, 1]


def _built(
    profile: object, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> ImageCms.ImageCmsTransform | None:
    """To RGB in sRGB; None for no profile, or one of another kind of pixels.

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
        return _assumed_srgb(image), "none"
    if image.mode == "I;16":
        return Image.fromarray(_levels_from_gamma(np.asarray(image) / 65535, gamma)), "gamma"
    table = _levels_from_gamma(np.arange(256) / 255, gamma).tolist()
    return image.point(table * len(image.getbands())), "gamma"


def _levels_from_gamma(stored: NDArray[np.float64], gamma: float) -> NDArray[np.uint8]:
    """sRGB levels 0 … 255 of stored levels 0 … 1."""
    light = stored ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def _assumed_srgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB") if image.mode == "CMYK" else eight_bits(image)
