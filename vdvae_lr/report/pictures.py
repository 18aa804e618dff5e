"""Pictures inside the page: read from files, written again small enough to send, as data URIs."""

import base64
import io
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vdvae_lr.report.html import Html, element

_MOST_BYTES = 400_000
_LONGEST_SIDE = 2_048  # pixels
_MOST_LOSSLESS_PIXELS = 2_000_000  # more would be photographs, which take long and stay large
_QUALITIES = (90, 75, 50)


def figure(path: Path, title: str, text: str) -> Html:
    """The picture in a file under its title, with a caption; a sentence in its place where it cannot be read.

    At most `_LONGEST_SIDE` pixels wide and high, and about `_MOST_BYTES` long.
    """
    heading, caption = element("h3", title), element("figcaption", text) if text else Html()
    try:
        image = _opened(path)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, Warning):
        return element("figure", heading, element("p", f"{path.name} is damaged: it cannot be read as a picture."))
    address = f"data:image/webp;base64,{base64.b64encode(_encoded(image)).decode()}"
    words = f"{title}. {text}" if text else title
    shown = element("img", src=address, width=image.width, height=image.height, alt=words)
    return element("figure", heading, shown, caption)


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as on a picture that would fill the memory
        with Image.open(path) as image:
            converted = image.convert("RGB")
    converted.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    return converted


def _encoded(image: Image.Image) -> bytes:
    """As WebP: exactly, where that is short enough, else as well as it can be had."""
    content = b""
    if image.width * image.height <= _MOST_LOSSLESS_PIXELS:
        content = _webp(image, lossless=True, quality=60)
    for quality in _QUALITIES:
        if 0 < len(content) <= _MOST_BYTES:
            break
        content = _webp(image, lossless=False, quality=quality)
    return content


def _webp(image: Image.Image, *, lossless: bool, quality: int) -> bytes:
    content = io.BytesIO()
    image.save(content, "WEBP", lossless=lossless, quality=quality, method=4)
    return content.getvalue()
