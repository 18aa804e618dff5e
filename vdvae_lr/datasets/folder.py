"""Any folder of images: found recursively, in the order of their names, cut and resized to the model's size."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vdvae_lr.datasets.decoding import SUFFIXES, UnreadableImageError, decode_image
from vdvae_lr.datasets.sources import Pixels, Rows, Splits, existing
from vdvae_lr.errors import InputError

BadImages = Literal["stop", "skip"]
VALID_SHARE, TEST_SHARE = 0.05, 0.05


class FolderSource:
    """Image files below `root`, decoded when they are read.

    With `bad_images="stop"` an unreadable file raises `InputError`; with `"skip"` the next readable one stands in for
    it, each time it is asked for, and `replaced_images` counts it.
    """

    in_memory = False

    def __init__(
        self, root: Path, names: Sequence[str], image_size: int, image_channels: int, bad_images: BadImages = "stop"
    ) -> None:
        self._root = root
        self._names = list(names)
        self._image_size = image_size
        self._image_channels = image_channels
        self._policy = bad_images
        self.replaced_images = 0

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Sequence[int] | Rows) -> Pixels:
        """The images at `indices`, (B, image_size, image_size, C) uint8."""
        return np.stack([self._readable_from(int(index)) for index in indices])

    def describe(self, index: int) -> str:
        """The file's path."""
        return str(self._root / self._names[index])

    def _readable_from(self, index: int) -> Pixels:
        for offset in range(len(self)):
            path = self._root / self._names[(index + offset) % len(self)]
            try:
                return decode_image(path, self._image_size, self._image_channels)
            except UnreadableImageError as error:
                if self._policy == "stop":
                    raise InputError(
                        f"{path} cannot be read as an image ({error}): remove it, or leave such files out with "
                        "--bad_images skip"
                    ) from error
                self.replaced_images += offset == 0
        raise InputError(
            f"none of the {len(self)} image files of a split of {self._root} can be read: check the folder"
        )


def open_folder(root: Path, image_size: int, image_channels: int, bad_images: BadImages) -> Splits:
    """Splits from subfolders train/, valid/ and test/ (valid/ serves as both without test/), or by `split_by_name`."""

    def source(folder: Path, names: Sequence[str]) -> FolderSource:
        return FolderSource(folder, names, image_size, image_channels, bad_images)

    if (root / "train").is_dir() and (root / "valid").is_dir():
        train, valid = (source(root / part, find_images(root / part)) for part in ("train", "valid"))
        has_test = (root / "test").is_dir()
        return Splits(train, valid, source(root / "test", find_images(root / "test")) if has_test else valid)
    return Splits(*(source(root, names) for names in split_by_name(find_images(root), root)))


def open_ffhq1024(root: Path, bad_images: BadImages) -> Splits:
    """`ffhq1024/train` and `ffhq1024/valid` below `root`; validation images are the test set, as published."""
    folders = [existing(root / "ffhq1024" / part, "ffhq1024") for part in ("train", "valid")]
    train, valid = (FolderSource(folder, find_images(folder), 1024, 3, bad_images) for folder in folders)
    return Splits(train, valid, valid)


def find_images(folder: Path) -> list[str]:
    """Names relative to `folder` (with `/`) of its image files, sorted; hidden files and folders are left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name a folder of images with --data_root")
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    # macOS writes hidden companions such as ._photo.jpg, and notebooks hidden copies, next to the images.
    names = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise InputError(f"{folder} holds no images: put {', '.join(sorted(SUFFIXES))} files in it or below it")
    return names


def split_by_name(names: Sequence[str], root: Path) -> tuple[list[str], list[str], list[str]]:
    """(train, valid, test): about 90, 5 and 5 %, at least one each, each name placed by a hash of itself.

    An added image therefore never moves another one from training to validation (beyond the first few dozen images,
    where a split would be empty without help).
    """
    if len(names) < 3:
        raise InputError(
            f"{root} holds {len(names)} images, but training, validation and test need one each: add images"
        )
    place = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in names}
    order = sorted(names, key=lambda name: (place[name], name))
    n_valid = max(1, sum(place[name] < VALID_SHARE for name in names))
    n_valid = min(n_valid, len(names) - 2)
    n_test = max(1, sum(VALID_SHARE <= place[name] < VALID_SHARE + TEST_SHARE for name in names))
    n_test = min(n_test, len(names) - n_valid - 1)
    held = n_valid + n_test
    return sorted(order[held:]), sorted(order[:n_valid]), sorted(order[n_valid:held])
