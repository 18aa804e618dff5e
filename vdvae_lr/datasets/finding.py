"""Find the image files in and below a folder: through links, each of them once, and with counts of what was left out.

Names are relative to the folder, with `/`, and sorted by their bytes. For names in UTF-8 that is the order of their
characters. A name that is not UTF-8 holds surrogates, as `os.fsdecode` makes them.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from vdvae_lr.datasets.decoding import SUFFIXES
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import LEADS_NOWHERE, cannot_be_read

SOUND_IMAGE = "put a sound image in its place"
Identity = tuple[int, int] | None
"""Device and inode of a file or folder, which are the same whatever path leads to it; None if nothing is there."""


@dataclass
class Found:
    """What a search in `folder` found. All names are sorted."""

    folder: Path
    names: list[str] = field(default_factory=list)
    """Of images."""
    links_to_nothing: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many files, folders and links were left out, by the reason or the file's ending."""
    folders: set[Identity] = field(default_factory=set)
    """Every folder that was read."""
    has_linked_files: bool = False
    """Whether some of the images may be links."""

    def identities(self) -> dict[str, Identity]:
        """The identity of each image, by name. Asks the disk once for each image."""
        return {name: _identity(self.folder / name) for name in self.names}


class ImageOpener(Protocol):
    """Where images lie. Loader workers get a pickled copy."""

    remedy: str
    """What a person can do about an unreadable image, beside skipping it."""

    def open(self, path: Path) -> Path | IO[bytes]:
        """What `decode_image` takes for the image at `path` (raises UnreadableImageError)."""


class ImageTree(ImageOpener, Protocol):
    """Where images lie in folders: on the disk, or in an archive. Paths are complete, archive included."""

    def top(self, root: Path) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files right in `root`, sorted, without hidden ones; InputError for none."""

    def search(self, folder: Path, already_read: Iterable[Identity] = ()) -> Found:
        """Find the images in and below `folder` (raises InputError if something may not be read)."""


class FoldersOnDisk:
    """The folders of the file system, as an `ImageTree`."""

    remedy = SOUND_IMAGE

    def top(self, root: Path) -> tuple[list[str], list[str]]:
        """Names of the folders (links to folders, too) and of the files right in `root`."""
        shown = [entry for entry in entries(root) if not entry.name.startswith(".")]
        folders = {entry.name: leads_to_folder(entry) for entry in shown}
        return [name for name in folders if folders[name]], [name for name in folders if not folders[name]]

    def search(self, folder: Path, already_read: Iterable[Identity] = ()) -> Found:
        """As the function `search`."""
        return search(folder, already_read)

    def open(self, path: Path) -> Path:
        """The path itself."""
        return path


def search(folder: Path, already_read: Iterable[Identity] = ()) -> Found:
    """Find the images in and below `folder`.

    Each folder is read once, whatever leads to it; those in `already_read` are not read at all. Linked folders are read
    after all others, so that an image in the folder keeps its own name. A linked image that was found already is left
    out.

    Raises:
        InputError: `folder` is no folder, or something below it may not be read.
    """
    found = Found(folder)
    linked_images: list[str] = []
    starts = [""]
    known = set(already_read)
    while starts:
        linked_folders: list[str] = []
        for start in sorted(starts, key=os.fsencode):
            waiting = [start]
            while waiting:
                here = waiting.pop()
                identity = _identity(folder / here)
                if identity not in known:
                    known.add(identity)
                    found.folders.add(identity)
                    waiting += _read_folder(found, here, linked_folders, linked_images)
                elif here == start:
                    found.left_out["link to a folder that is read already"] += 1
        starts = linked_folders
    if linked_images:  # without links nobody needs identities, which cost a system call for each image
        found.has_linked_files = True
        known = set(found.identities().values())
        for name in sorted(linked_images, key=os.fsencode):
            identity = _identity(folder / name)
            if identity in known:
                found.left_out["link to an image that is read already"] += 1
            else:
                found.names.append(name)
                known.add(identity)
    found.names.sort(key=os.fsencode)
    found.links_to_nothing.sort(key=os.fsencode)
    return found


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by the bytes of the names; raises InputError if it is no folder or not readable."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: os.fsencode(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} is not a folder: name a folder or a zip archive of images with --data_root"
        ) from None
    except OSError as error:
        raise cannot_be_read(folder, error) from None


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; raises InputError if the system does not tell."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in LEADS_NOWHERE:
            return False
        raise cannot_be_read(Path(entry), error) from None


def is_image_name(name: str) -> bool:
    """Whether a name has the ending of an image file, in any letter case."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _read_folder(found: Found, name: str, linked_folders: list[str], linked_images: list[str]) -> list[str]:
    """Sort out what one folder holds; returns the folders right below it, the last name first."""
    below: list[str] = []
    for entry in entries(found.folder / name):
        path = f"{name}/{entry.name}" if name else entry.name
        is_link = entry.is_symlink()
        if entry.name.startswith("."):  # such as ._photo.jpg, which macOS writes beside photo.jpg
            found.left_out["hidden"] += 1
        elif is_link and _identity(entry) is None:
            found.links_to_nothing.append(path)
        elif leads_to_folder(entry):
            (linked_folders if is_link else below).append(path)
        elif not is_image_name(path):
            found.left_out[PurePosixPath(path).suffix.lower() or "file without an ending"] += 1
        elif entry.is_file():
            (linked_images if is_link else found.names).append(path)
        else:
            found.left_out["pipe, socket or device"] += 1
    return below[::-1]


def _identity(place: Path | os.DirEntry[str]) -> Identity:
    """The identity of a path's target; raises InputError if the system does not tell."""
    try:
        status = place.stat()
    except OSError as error:
        if error.errno in LEADS_NOWHERE:
            return None
        raise cannot_be_read(Path(place), error) from None
    return status.st_dev, status.st_ino
