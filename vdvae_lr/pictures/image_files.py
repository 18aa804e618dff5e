"""A person's own image files in the size and channels of a model.

Shapes: B images, C channels (1 or 3), H = W the model's image size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vdvae_lr.datasets.decoding import FORMATS, DecodedImage, UnreadableImageError, decode
from vdvae_lr.datasets.folder import find_images
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import exists, is_file, is_folder, path_of
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.images import Pictures

Images = Pictures | str | Path | Sequence[str | Path]
"""(B, H, W, C) or (H, W, C) uint8, or files and folders of images."""
_KIND = {1: "grey", 3: "colour"}
_MODE_WORDS = {
    "1": "black and white",
    **dict.fromkeys(("L", "LA", "La", "I;16", "I;16B"), "grey"),
    "F": "floating-point grey",
    **dict.fromkeys(("RGB", "RGBA", "YCbCr"), "colour"),
    **dict.fromkeys(("P", "PA"), "palette"),
    "CMYK": "four-ink colour (CMYK)",
    "LAB": "Lab colour",
}
_COLOUR_WORDS = {
    "profile": "converted from its colour profile to sRGB",
    "gamma": "converted from its gamma to sRGB",
    "unusable profile": "taken as sRGB (its colour profile is damaged or does not fit)",
}


@dataclass(frozen=True)
class ReadImage:
    """One file's image."""

    picture: Pictures
    """(H, W, C) uint8."""
    change: str
    """What had to be done to the file's image, in words; empty: nothing."""


def find_image_files(names: Iterable[str | Path]) -> list[Path]:
    """The named image files, and those in and below the named folders, in the order given.

    Raises:
        InputError: there is no name, a name is not a file or folder that may be read, or a folder holds no images.
    """
    paths: list[Path] = []
    for path in map(path_of, names):
        if not exists(path):
            raise InputError(f"{path} does not exist; name an image file, or a folder of images.")
        if is_folder(path):
            paths += [path / found for found in find_images(path)]
        elif is_file(path):
            paths.append(path)
        else:  # reading a pipe would wait without end
            raise InputError(f"{path} is a pipe, a socket or a device; name an image file, or a folder of images.")
    if not paths:
        raise InputError("there are no images; name image files, or folders of them.")
    return paths


def read_image(path: Path, model: LatentModel, exact: bool = False) -> ReadImage:
    """Read one file, cut it to its central square, and resize and convert it to the model's size and channels.

    Raises:
        InputError: the file cannot be read as an image, or it would have to be changed and `exact` is True.
    """
    channels, size, _ = model.image_shape
    try:
        decoded = decode(path, size, channels)
    except UnreadableImageError as error:
        raise InputError(f"{path} cannot be read as an image ({error}); give a {FORMATS} file.") from None
    change = _change(decoded, size, _KIND[channels])
    if exact and change:
        raise InputError(
            f"{path} is not what the model takes, {size}x{size} {_KIND[channels]}: it would be {change}; "
            "convert it yourself, or leave out --exact."
        )
    return ReadImage(decoded.pixels, change)


def pictures_of(model: LatentModel, images: Images) -> Pictures:
    """Images in any of their forms as (B, H, W, C) uint8 (raises InputError for unreadable files and other arrays)."""
    if isinstance(images, str | Path):
        images = [images]
    if not isinstance(images, np.ndarray):
        return np.stack([read_image(path, model).picture for path in find_image_files(images)])
    array = images[None] if images.ndim == 3 else images
    channels, height, width = model.image_shape
    if array.dtype != np.uint8 or array.shape[1:] != (height, width, channels) or len(array) == 0:
        raise InputError(
            f"images are an array of {images.dtype} {images.shape}; the model takes uint8 of (B, "
            f"{height}, {width}, {channels}) with B from 1 up, or image files."
        )
    return np.ascontiguousarray(array)


def one_picture_of(model: LatentModel, images: Images) -> Pictures:
    """As `pictures_of`, for one image: (1, H, W, C); raises InputError for several images, too."""
    pictures = pictures_of(model, images)
    if len(pictures) != 1:
        raise InputError(f"{len(pictures)} images were given where one is wanted; name one file.")
    return pictures


def single_picture(picture: Pictures) -> Image.Image:
    """A picture (H, W, C) at its own size, as grey if it has one channel."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def _change(stored: DecodedImage, size: int, wanted: str) -> str:
    kind = ("16-bit " if stored.is_deep else "") + _MODE_WORDS.get(stored.mode, stored.mode)
    smaller = min(stored.width, stored.height)
    done = []
    if stored.frames != 1:
        done.append(f"taken from the first of its {stored.frames or 'several'} pictures")
    if stored.width != stored.height:
        done.append(f"cut from {stored.width}x{stored.height} to its central square")
    if smaller != size:
        done.append(f"{'enlarged' if smaller < size else 'reduced'} to {size}x{size}")
    if stored.is_turned:
        done.append("turned upright")
    if stored.colours != "none":
        done.append(_COLOUR_WORDS[stored.colours])
    if stored.has_transparency:
        done.append("laid on white where it is transparent")
    if kind != wanted:
        done.append(f"turned from {kind} to {wanted}")
    return " and ".join(done) if len(done) < 3 else ", ".join(done[:-1]) + f" and {done[-1]}"
