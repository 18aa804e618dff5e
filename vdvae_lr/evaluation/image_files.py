"""A person's own image files as a model takes them, and what had to be done to them; and single pictures as files.

Shapes: B images, C channels (1 or 3), H W the model's resolution.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from vdvae_lr.datasets.decoding import UnreadableImageError, decode_image
from vdvae_lr.datasets.folder import find_images
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.images import Pictures
from vdvae_lr.model.vae import VAEConfig
from vdvae_lr.paths import exists, is_folder, path_of

Images = Pictures | str | Path | Sequence[str | Path]
"""(B, H, W, C) or (H, W, C) uint8, or files and folders of images."""
_KIND = {1: "grey", 3: "colour"}
_MODE_WORDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I": "grey of more than 8 bits",
    "F": "floating-point grey",
    "RGB": "colour",
    "RGBA": "colour",
    "P": "palette",
    "CMYK": "four-ink colour (CMYK)",
}
_LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class ReadImage:
    """One file's image."""

    path: Path
    picture: Pictures
    """(H, W, C) uint8."""
    change: str
    """What had to be done to it, in words; empty: it is as it was in the file."""


def find_image_files(names: Iterable[str | Path]) -> list[Path]:
    """The files themselves, and those in and below the folders, in the order given.

    Raises:
        InputError: no names, a name of nothing, or a folder without images.
    """
    paths: list[Path] = []
    for name in names:
        path = path_of(name)
        if is_folder(path):
            paths += [path / found for found in find_images(path)]
        elif exists(path):
            paths.append(path)
        else:
            raise InputError(f"{path} does not exist; name an image file, or a folder of images.")
    if not paths:
        raise InputError("there are no images; name image files, or folders of them.")
    return paths


def read_image(path: Path, config: VAEConfig, exact: bool = False) -> ReadImage:
    """One file, cut to its central square and resized to the model's size and channels.

    Args:
        path: of a PNG, JPEG, WebP or BMP file.
        config: of the model.
        exact: refuse a file that is not of the model's size and channels already.

    Raises:
        InputError: no such image, or an inexact one.
    """
    size, channels = config.image_size, config.image_channels
    try:
        picture = decode_image(path, size, channels)
    except UnreadableImageError as error:
        raise InputError(f"{path} cannot be read as an image ({error}); give a PNG, JPEG, WebP or BMP file.") from None
    width, height, mode = _header(path)
    change = _change(width, height, mode, config)
    if exact and change:
        raise InputError(
            f"{path} is not what the model takes, {size}x{size} {_KIND[channels]}: it would be {change}; "
            "convert it yourself, or leave out --exact."
        )
    return ReadImage(path, picture, change)


def pictures_of(config: VAEConfig, images: Images) -> Pictures:
    """Images in any of their forms as (B, H, W, C) uint8 of the model's size.

    Raises:
        InputError: files that cannot be read, or an array of another shape or type.
    """
    if isinstance(images, str | Path):
        images = [images]
    if not isinstance(images, np.ndarray):
        return np.stack([read_image(path, config).picture for path in find_image_files(images)])
    array = images[None] if images.ndim == 3 else images
    expected = (config.image_size, config.image_size, config.image_channels)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != expected or len(array) == 0:
        raise InputError(
            f"images are an array of {images.dtype} {images.shape}; the model takes uint8 of (B, "
            f"{', '.join(map(str, expected))}) with B from 1 up, or image files."
        )
    return np.ascontiguousarray(array)


def one_picture_of(config: VAEConfig, images: Images) -> Pictures:
    """As `pictures_of`, (1, H, W, C); raises InputError for several images, too."""
    pictures = pictures_of(config, images)
    if len(pictures) != 1:
        raise InputError(f"{len(pictures)} images were given where one is wanted; name one file.")
    return pictures


def single_picture(picture: Pictures) -> Image.Image:
    """(H, W, C) uint8 as it is: a grey picture as grey, at its own size."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def _header(path: Path) -> tuple[int, int, str]:
    """Width and height as seen upright, and the kind of pixels in words, of a file that could be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as opened:
            width, height = opened.size
            lying = opened.getexif().get(ExifTags.Base.Orientation) in _LYING
            mode = _MODE_WORDS.get(opened.mode, opened.mode)
            mode += " with transparency" if opened.has_transparency_data else ""
    return (height, width, mode) if lying else (width, height, mode)


def _change(width: int, height: int, mode: str, config: VAEConfig) -> str:
    size, wanted = config.image_size, _KIND[config.image_channels]
    done = []
    if width != height:
        done.append(f"cut from {width}x{height} to its central square")
    if min(width, height) != size:
        done.append(f"{'enlarged' if min(width, height) < size else 'reduced'} to {size}x{size}")
    if mode != wanted:
        done.append(f"turned from {mode} to {wanted}")
    return " and ".join(done) if len(done) < 3 else ", ".join(done[:-1]) + f" and {done[-1]}"
