"""Any folder of images: found below it, split, cut and resized to the model's size."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vdvae_lr.datasets.decoding import SUFFIXES, UnreadableImageError, decode_image
from vdvae_lr.datasets.finding import (
    HELD_OUT_IMAGE,
    LINK_TO_NOTHING,
    Found,
    is_image_name,
    left_out_words,
    search,
)
from vdvae_lr.datasets.sources import Pixels, Rows, Splits, existing
from vdvae_lr.datasets.split_folders import SplitFolders, find_split_folders, refuse_splits_below
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import LEADS_NOWHERE, cannot_be_read

BadImages = Literal["stop", "skip"]
VALID_SHARE, TEST_SHARE = 0.05, 0.05
_OF_THE_CONTENT = frozenset({None, errno.EINVAL, errno.EOVERFLOW})
"""Error numbers of a decoder that a damaged file sends to impossible places; most errors of decoders have none."""
_SKIP = "let other images stand in for such files with --bad_images skip"


class FolderSource:
    """Image files below `root`, decoded when they are read.

    With `bad_images="stop"` an unreadable file raises `InputError`; with `"skip"` the next readable one stands in for
    it, each time it is asked for, and `replaced_images` counts it. A file that may not be read, or not now (no
    permission, a failing disk), raises `InputError` either way: it says nothing of the image.
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

    def fingerprint(self) -> str:
        """Digest of the names in their order; the same wherever the folder lies."""
        return hashlib.sha256(b"\0".join(map(os.fsencode, self._names))).hexdigest()

    def _readable_from(self, index: int) -> Pixels:
        for offset in range(len(self)):
            path = self._root / self._names[(index + offset) % len(self)]
            try:
                return decode_image(path, self._image_size, self._image_channels)
            except UnreadableImageError as error:
                self._refuse(path, error)
                self.replaced_images += offset == 0
        raise InputError(
            f"none of the {len(self)} image files of a split of {self._root} can be read: check the folder"
        )

    def _refuse(self, path: Path, error: UnreadableImageError) -> None:
        """Raise what a person should know of an unreadable file; nothing where it is skipped."""
        cause = error.__cause__
        code = cause.errno if isinstance(cause, OSError) else None
        not_there = code in LEADS_NOWHERE
        if isinstance(cause, OSError) and not not_there and code not in _OF_THE_CONTENT:
            raise cannot_be_read(path, cause) from error
        if self._policy == "stop" and not_there and not path.is_symlink():
            raise InputError(
                f"{path} is no longer there: put it back, or train on without it with --accept_changed_images"
            ) from error
        if self._policy == "stop":
            what = "is a link to nothing" if not_there else f"cannot be read as an image ({error})"
            raise InputError(f"{path} {what}: put a sound image in its place, or {_SKIP}") from error


def open_folder(root: Path, image_size: int, image_channels: int, bad_images: BadImages) -> Splits:
    """Splits from subfolders for training and held-out images (`find_split_folders`), else by `split_by_name`.

    Without a test folder the validation images are the test images, too. Without a validation folder a share of the
    training images is validation, chosen by name.

    Raises:
        InputError: no images, unclear splits, something that may not be read, or links to nothing (with "stop").
    """
    parts = find_split_folders(root)
    if parts is not None:
        return _split_by_folders(parts, image_size, image_channels, bad_images)
    found = _images_below(root, bad_images)
    refuse_splits_below(root, found.names)
    names = split_by_name(found.names, root)
    train, valid, test = (FolderSource(root, part, image_size, image_channels, bad_images) for part in names)
    return Splits(train, valid, test, found.left_out, "by their names")


def open_ffhq1024(root: Path, bad_images: BadImages) -> Splits:
    """`ffhq1024/train` and `ffhq1024/valid` below `root`; validation images are the test set, as published."""
    train, valid = (existing(root / "ffhq1024" / part, "ffhq1024") for part in ("train", "valid"))
    return _split_by_folders(SplitFolders(train, valid, None, {}), 1024, 3, bad_images)


def _split_by_folders(parts: SplitFolders, image_size: int, image_channels: int, bad_images: BadImages) -> Splits:
    held_out = [_images_below(part, bad_images) for part in (parts.valid, parts.test) if part is not None]
    train = _without(_images_below(parts.train, bad_images, held_out), held_out)
    left_out = sum((found.left_out for found in (train, *held_out)), Counter(parts.left_out))
    train_names, *held_out_names = (
        [f"{found.folder.name}/{name}" for name in found.names] for found in (train, *held_out)
    )
    how = "by their folders"
    if parts.valid is None:
        train_names, valid_names = hold_out_by_name(train_names, parts.train)
        held_out_names.insert(0, valid_names)
        how += f", with validation cut from '{parts.train.name}' by their names"

    def source(names: Sequence[str]) -> FolderSource:
        return FolderSource(parts.train.parent, names, image_size, image_channels, bad_images)

    valid, *others = map(source, held_out_names)
    return Splits(source(train_names), valid, others[0] if others else valid, left_out, how)


def find_images(folder: Path) -> list[str]:
    """Names relative to `folder` (with `/`) of its image files, sorted; `search` says which.

    Raises:
        InputError: there are none, `folder` is none, something may not be read, or a link leads to nothing.
    """
    return _images_below(folder).names


def _images_below(folder: Path, bad_images: BadImages | None = None, held_out: Sequence[Found] = ()) -> Found:
    """The images, without those of folders that were read as held out.

    With "skip", a link to nothing counts as an unreadable image where its name ends as one, else it is left out. With
    None nobody can choose so, and the error does not name the setting.
    """
    found = search(folder, [identity for other in held_out for identity in other.folders])
    broken = found.links_to_nothing
    if broken and bad_images != "skip":
        more = f", as are {len(broken) - 1:,} more" if len(broken) > 1 else ""
        otherwise = f", or {_SKIP}" if bad_images else ""
        raise InputError(f"{folder / broken[0]} is a link to nothing{more}: mend or remove it{otherwise}")
    found.names = sorted([*found.names, *filter(is_image_name, broken)], key=os.fsencode)
    found.left_out[LINK_TO_NOTHING] += sum(not is_image_name(name) for name in broken)
    if not found.names:
        said = left_out_words(found.left_out)
        instead = f" (left out: {said})" if said else ""
        endings = ", ".join(sorted(SUFFIXES))
        raise InputError(f"{folder} holds no images{instead}: put {endings} files in it or below it")
    return found


def _without(train: Found, held_out: Sequence[Found]) -> Found:
    """The training images without those that are held out too, by a link in one folder or the other.

    Raises:
        InputError: none is left.
    """
    if any(found.has_linked_files for found in (train, *held_out)):
        taken = {identity for found in held_out for identity in found.identities().values()}
        own = train.identities()
        kept = [name for name in train.names if own.get(name) not in taken]
        train.left_out[HELD_OUT_IMAGE] += len(train.names) - len(kept)
        train.names = kept
    if not train.names:
        raise InputError(
            f"{train.folder} holds no images that are not held out in {held_out[0].folder}, too: put other images there"
        )
    return train


def split_by_name(names: Sequence[str], root: Path) -> tuple[list[str], list[str], list[str]]:
    """(train, valid, test): about 90, 5 and 5 %, at least one each, each name placed by a hash of itself.

    An added image therefore never moves another one from training to validation (beyond the first few dozen images,
    where a split would be empty without help).
    """
    if len(names) < 3:
        raise InputError(
            f"{root} holds {len(names)} images, but training, validation and test need one each: add images"
        )
    place = {name: _place(name) for name in names}
    order = sorted(names, key=lambda name: place[name])
    n_valid = max(1, sum(place[name] < VALID_SHARE for name in names))
    n_valid = min(n_valid, len(names) - 2)
    n_test = max(1, sum(VALID_SHARE <= place[name] < VALID_SHARE + TEST_SHARE for name in names))
    n_test = min(n_test, len(names) - n_valid - 1)
    held = n_valid + n_test
    return _by_bytes(order[held:]), _by_bytes(order[:n_valid]), _by_bytes(order[n_valid:held])


def hold_out_by_name(names: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """(train, valid): about 95 and 5 %, at least one each, placed as by `split_by_name`."""
    if len(names) < 2:
        raise InputError(f"{folder} holds 1 image, but training and validation need one each: add images")
    order = sorted(names, key=_place)
    n_valid = min(max(1, sum(_place(name) < VALID_SHARE for name in names)), len(names) - 1)
    return _by_bytes(order[n_valid:]), _by_bytes(order[:n_valid])


def _place(name: str) -> float:
    """A number in [0, 1) by the name's bytes, whatever the locale."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def _by_bytes(names: Sequence[str]) -> list[str]:
    return sorted(names, key=os.fsencode)
