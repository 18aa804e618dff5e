"""Transparency of every kind apart from the colours, and laid on white."""

import numpy as np
from PIL import Image

_KEY_SCALES = {"L;2": 85, "L;4": 17}  # Pillow scales such levels to 0 … 255, but not the transparent one


def split_transparency(image: Image.Image, layout: str) -> tuple[Image.Image, Image.Image | None]:
    """The colours without transparency, and the opacity as L (0: transparent), or None where all is opaque.

    Args:
        image: loaded, of any mode.
        layout: Pillow's name of the pixels' form in the file, such as `RGB;16B`.
    """
    colours, opacity = _split(image, layout)
    if opacity is None or opacity.getextrema()[0] == 255:
        return colours, None
    return colours, opacity


def on_white(colours: Image.Image, opacity: Image.Image | None) -> Image.Image:
    """L or RGB laid on white: blended by sRGB levels, as browsers do."""
    if opacity is None:
        return colours
    layer = colours.convert("RGB")
    layer.putalpha(opacity)
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _split(image: Image.Image, layout: str) -> tuple[Image.Image, Image.Image | None]:
    if image.mode in ("P", "PA"):
        if image.palette is None:
            raise ValueError("its palette is missing")
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if layout.startswith("LA;16"):  # read by Pillow as RGBA
        image = image.convert("LA")
    if image.mode in ("La", "RGBa"):  # multiplied by the opacity
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    colours = image.convert("L") if image.mode == "1" else image
    key = image.info.get("transparency")
    return colours, None if key is None else _opacity_by_key(colours, key, layout)


def _opacity_by_key(image: Image.Image, key: int | tuple[int, ...], layout: str) -> Image.Image:
    """Of a PNG in which one colour is transparent; `key` is as in the file."""
    wanted = np.asarray(key)
    if layout == "1":
        wanted = 255 * (wanted > 0)
    elif layout.startswith("RGB;16"):
        wanted = wanted >> 8  # Pillow reads the upper eight bits of 16-bit colours
    else:
        wanted = wanted * _KEY_SCALES.get(layout, 1)
    other = np.asarray(image) != wanted
    return Image.fromarray((other.any(axis=-1) if other.ndim == 3 else other).astype(np.uint8) * np.uint8(255))
