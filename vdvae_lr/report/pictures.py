"""Pictures of the page, read from files and encoded again, small enough to send."""

import io
import warnings
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vdvae_lr.evaluation.document import COLLAPSE_PICTURE, NOISE_PICTURE, SAMPLES_PICTURE
from vdvae_lr.report.content import Beside, Figure, Section
from vdvae_lr.report.reported import Reported

_MOST_BYTES = 400_000
_LONGEST_SIDE = 2_048  # pixels
_MOST_LOSSLESS_PIXELS = 2_000_000  # a larger picture takes long to encode without loss, and stays large
_QUALITIES = (90, 75, 50)
_MOST_OTHERS = 6
_SHOWN_ELSEWHERE = (COLLAPSE_PICTURE, SAMPLES_PICTURE, NOISE_PICTURE.format(unit="*", variance="*"))
_SAMPLES_CAPTION = "The same noise for every model, at temperature 1, enlarged."
_CAPTION = "Held-out images, their reconstructions, and samples. The weights are averaged."


def section(models: Sequence[Reported]) -> Section:
    """Samples of all models; then the first and last picture of each run, and others beside its evaluation."""
    return Section(
        beside=beside(models, SAMPLES_PICTURE, "samples", _SAMPLES_CAPTION),
        pictures=[figure for model in models for figure in _pictures_of(model)],
    )


def _pictures_of(model: Reported) -> list[Figure]:
    training = list(dict.fromkeys([*model.pictures[:1], *model.pictures[-1:]]))
    others = [path for path in model.evaluation_pictures if not any(map(path.match, _SHOWN_ELSEWHERE))]
    return [
        *(picture_figure(path, f"{model.label}, iteration {_iteration(path)}", _CAPTION) for path in training),
        *(picture_figure(path, f"{model.label}, {path.name}") for path in others[:_MOST_OTHERS]),
    ]


def _iteration(path: Path) -> str:
    number = path.stem.removeprefix("step-")
    return f"{int(number):,}" if number.isdecimal() else number


def beside(models: Sequence[Reported], name: str, title: str, caption: str) -> list[Beside]:
    """The picture of that name from every evaluation that has one; empty if none has."""
    figures = [
        picture_figure(path, model.label) for model in models for path in model.evaluation_pictures if path.name == name
    ]
    return [Beside(title, figures, caption)] if figures else []


def picture_figure(path: Path, title: str, caption: str = "") -> Figure:
    """The picture in a file, at most `_LONGEST_SIDE` pixels wide and high, and about `_MOST_BYTES` long.

    If the file is damaged, the caption says so, and there is no picture.
    """
    try:
        image = _opened(path)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, Warning):
        return Figure(title, caption=f"{path.name} is damaged: it cannot be read as a picture.")
    alt = f"{title}. {caption}" if caption else title
    source = f"data:image/webp;base64,{b64encode(_encoded(image)).decode()}"
    return Figure(title, source, alt, image.width, image.height, caption)


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of a picture that would fill the memory
        with Image.open(path) as image:
            converted = image.convert("RGB")
    converted.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    return converted


def _encoded(image: Image.Image) -> bytes:
    """As WebP: without loss if that is short enough, otherwise at the best quality that is."""
    ways = [{"lossless": False, "quality": quality} for quality in _QUALITIES]
    if image.width * image.height <= _MOST_LOSSLESS_PIXELS:
        ways.insert(0, {"lossless": True, "quality": 60})
    for way in ways:
        content = io.BytesIO()
        image.save(content, "WEBP", method=4, **way)
        if content.tell() <= _MOST_BYTES:
            break
    return content.getvalue()
