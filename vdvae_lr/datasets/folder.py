"""Any folder or zip archive of images: found below it, split, cut and resized to the model's size."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vdvae_lr.datasets.decoding import SUFFIXES, UnreadableImageError, decode_image
from vdvae_lr.datasets.finding import FoldersOnDisk, Found, ImageOpener, ImageTree, is_image_name
from vdvae_lr.datasets.folder_splits import SplitFolders, find_split_folders, refuse_splits_below, split_by_name
from vdvae_lr.datasets.inventory import left_out_words
from vdvae_lr.datasets.sources import Pixels, Rows, Splits
from vdvae_lr.datasets.zipped_folder import ZippedFolder, archive_in
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import LEADS_NOWHERE, cannot_be_read

BadImages = Literal["stop", "skip"]
_OF_THE_CONTENT = frozenset({None, errno.EINVAL, errno.EOVERFLOW})
"""Error numbers of an OSError that a damaged file causes: usually none; these if it makes the decoder seek too far."""
_SKIP = "let other images stand in for such files with --bad_images skip"
_ON_DISK = FoldersOnDisk()


class FolderSource:
    """Images below `root`, handed out by `opener` and decoded when they are read.

    An unreadable file raises `InputError` if `bad_images` is "stop". If it is "skip", the next readable file is read
    instead, every time, and `replaced_images` counts it. A file that the system does not hand out (no permission, a
    failing disk) raises `InputError` in both cases, since the image itself may be sound.
    """

    in_memory = False

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        image_size: int,
        image_channels: int,
        bad_images: BadImages = "stop",
        opener: ImageOpener = _ON_DISK,
    ) -> None:
        self._root = root
        self._opener = opener
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
        """Digest of the names in their order; it does not change when the folder moves."""
        return hashlib.sha256(b"\0".join(map(os.fsencode, self._names))).hexdigest()

    def _readable_from(self, index: int) -> Pixels:
        for offset in range(len(self)):
            path = self._root / self._names[(index + offset) % len(self)]
            try:
                return decode_image(self._opener.open(path), self._image_size, self._image_channels)
            except UnreadableImageError as error:
                self._refuse(path, error)
                self.replaced_images += offset == 0
        raise InputError(
            f"none of the {len(self)} image files of a split of {self._root} can be read: check what it holds"
        )

    def _refuse(self, path: Path, error: UnreadableImageError) -> None:
        """Raise `InputError` for an unreadable file; return if the policy is to skip it."""
        cause = error.__cause__
        code = cause.errno if isinstance(cause, OSError) else None
        not_there = code in LEADS_NOWHERE
        if isinstance(cause, OSError) and not not_there and code not in _OF_THE_CONTENT:
            raise cannot_be_read(path, cause) from error
        if self._policy == "skip":
            return
        if not_there and not path.is_symlink():
            raise InputError(
                f"{path} is no longer there: put it back, or train on without it with --accept_changed_images"
            ) from error
        what = "is a link to nothing" if not_there else f"cannot be read as an image ({error})"
        raise InputError(f"{path} {what}: {self._opener.remedy}, or {_SKIP}") from error


def open_folder(root: Path, image_size: int, image_channels: int, bad_images: BadImages) -> Splits:
    """Split a folder by its subfolders for training and held-out images, or by the images' names if it has none.

    `root` is a folder, a zip archive, or a folder inside an archive (`photos.zip/faces`).

    Raises:
        InputError: no images, unclear splits, something that may not be read, a damaged archive, or links to nothing
            (with "stop").
    """
    tree = _tree_of(root)
    parts = find_split_folders(root, *tree.top(root))
    if parts is not None:
        return split_by_folders(parts, image_size, image_channels, bad_images, tree)
    found = _images_below(tree, root, bad_images)
    refuse_splits_below(root, found.names)
    names = split_by_name(found.names, root)
    train, valid, test = (FolderSource(root, part, image_size, image_channels, bad_images, tree) for part in names)
    return Splits(train, valid, test, found.left_out, "by their names")


def split_by_folders(
    parts: SplitFolders, image_size: int, image_channels: int, bad_images: BadImages, tree: ImageTree = _ON_DISK
) -> Splits:
    """Read each part from its folder; raises InputError as `open_folder` does.

    Without a test folder the validation images are the test images, too. Without a validation folder a share of the
    training images is validation, chosen by name.
    """
    held_out = [_images_below(tree, part, bad_images) for part in (parts.valid, parts.test) if part is not None]
    train = _without(_images_below(tree, parts.train, bad_images, held_out), held_out)
    left_out = sum((found.left_out for found in (train, *held_out)), Counter(parts.left_out))
    train_names, *held_out_names = (
        [f"{found.folder.name}/{name}" for name in found.names] for found in (train, *held_out)
    )
    how = "by their folders"
    if parts.valid is None:
        train_names, valid_names = split_by_name(train_names, parts.train, held_out_parts=1)
        held_out_names.insert(0, valid_names)
        how += f", with validation cut from '{parts.train.name}' by their names"

    def part_of(names: Sequence[str]) -> FolderSource:
        return FolderSource(parts.train.parent, names, image_size, image_channels, bad_images, tree)

    valid, *others = map(part_of, held_out_names)
    return Splits(part_of(train_names), valid, others[0] if others else valid, left_out, how)


def find_images(folder: Path) -> list[str]:
    """The names of a folder's or archive's images, sorted; raises InputError for none and for links to nothing."""
    return _images_below(_tree_of(folder), folder).names


def _tree_of(root: Path) -> ImageTree:
    archive = archive_in(root)
    return _ON_DISK if archive is None else ZippedFolder(archive)


def _images_below(
    tree: ImageTree, folder: Path, bad_images: BadImages | None = None, held_out: Sequence[Found] = ()
) -> Found:
    """Find the images in and below a folder, without those in folders that were read as held out.

    With "skip", a link to nothing counts as an unreadable image if its name ends as one, else it is left out. None
    means that there is no such setting here, so the error does not name it.
    """
    found = tree.search(folder, [identity for other in held_out for identity in other.folders])
    broken = found.links_to_nothing
    if broken and bad_images != "skip":
        more = f", as are {len(broken) - 1:,} more" if len(broken) > 1 else ""
        otherwise = f", or {_SKIP}" if bad_images else ""
        raise InputError(f"{folder / broken[0]} is a link to nothing{more}: correct or remove it{otherwise}")
    found.names = sorted([*found.names, *filter(is_image_name, broken)], key=os.fsencode)
    found.left_out["link to nothing"] += sum(not is_image_name(name) for name in broken)
    if not found.names:
        said = left_out_words(found.left_out)
        instead = f" (left out: {said})" if said else ""
        endings = ", ".join(sorted(SUFFIXES))
        raise InputError(f"{folder} holds no images{instead}: put {endings} files in it or below it")
    return found


def _without(train: Found, held_out: Sequence[Found]) -> Found:
    """Leave out the training images that a link makes held-out images, too; raises InputError if none is left."""
    if any(found.has_linked_files for found in (train, *held_out)):
        taken = {identity for found in held_out for identity in found.identities().values()} - {None}
        own = train.identities()
        kept = [name for name in train.names if own.get(name) not in taken]
        train.left_out["image of train that is held out"] += len(train.names) - len(kept)
        train.names = kept
    if not train.names:
        raise InputError(
            f"{train.folder} holds no images that are not held out in {held_out[0].folder}, too: put other images there"
        )
    return train
