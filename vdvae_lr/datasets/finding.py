"""The image files in and below a folder: found through links, each of them once, with an account of what is left out.

Names are relative to the folder, with `/`, and sorted by their bytes. For names in UTF-8 that is the order of their
characters. A name that is not UTF-8 holds surrogates, as `os.fsdecode` makes them.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vdvae_lr.datasets.decoding import SUFFIXES
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import LEADS_NOWHERE, cannot_be_read

_ENDINGS_SHOWN, _REASONS_SHOWN = 5, 12

Identity = tuple[int, int]
"""Device and number of a file or folder: the same by whatever path it is reached."""

HIDDEN = "hidden"
COUNTED_FOLDER = "link to a folder that is read already"
COUNTED_IMAGE = "link to an image that is read already"
LINK_TO_NOTHING = "link to nothing"
NO_ENDING = "file without an ending"
NO_FILE = "pipe, socket or device"
HELD_OUT_IMAGE = "image of train that is held out"


@dataclass
class Found:
    """What a search came to.

    Attributes:
        folder: that was searched.
        names: of its images, sorted.
        links_to_nothing: names of links whose target is not there, sorted.
        left_out: how many files, folders and links were left out, by the reason or by the ending.
        folders: every folder that was read.
        has_linked_files: whether some of the names are links.
    """

    folder: Path
    names: list[str] = field(default_factory=list)
    links_to_nothing: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    folders: set[Identity] = field(default_factory=set)
    has_linked_files: bool = False

    def identities(self) -> dict[str, Identity]:
        """Of each image by name, those left out that are no longer there; asks the disk once an image."""
        found = {}
        for name in self.names:
            status = _status(self.folder / name)
            if status is not None:
                found[name] = (status.st_dev, status.st_ino)
        return found


def search(folder: Path, already_read: Iterable[Identity] = ()) -> Found:
    """Find the images in and below `folder`.

    Linked folders are read after all others, so that no link takes an image's own name from it. Each folder is read
    once, whatever leads to it; those in `already_read` are not read at all. Of links to one file the first counts, and
    none where the file itself is found.

    Raises:
        InputError: `folder` is none, or something below it may not be read.
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
                if _is_new(folder / here, known, found):
                    waiting += _read_folder(found, here, linked_folders, linked_images)
                elif here == start:
                    found.left_out[COUNTED_FOLDER] += 1
        starts = linked_folders
    _add_linked_images(found, linked_images)
    found.names.sort(key=os.fsencode)
    found.links_to_nothing.sort(key=os.fsencode)
    return found


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by the bytes of the names.

    Raises:
        InputError: it is no folder, or may not be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: os.fsencode(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} is not a folder: name a folder of images with --data_root") from None
    except OSError as error:
        raise cannot_be_read(folder, error) from None


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one (raises InputError where that may not be known)."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in LEADS_NOWHERE:
            return False
        raise cannot_be_read(Path(entry.path), error) from None


def _read_folder(found: Found, name: str, linked_folders: list[str], linked_images: list[str]) -> list[str]:
    """Sort what one folder holds; names of the folders right below it, the last one first."""
    below = []
    for entry in entries(found.folder / name):
        path = f"{name}/{entry.name}" if name else entry.name
        if entry.name.startswith("."):  # macOS writes hidden companions such as ._photo.jpg, notebooks hidden copies
            found.left_out[HIDDEN] += 1
        elif entry.is_symlink():
            _follow(found, path, linked_folders, linked_images)
        elif leads_to_folder(entry):
            below.append(path)
        elif not is_image_name(path):
            found.left_out[_ending(path)] += 1
        elif entry.is_file():
            found.names.append(path)
        else:
            found.left_out[NO_FILE] += 1
    return below[::-1]


def _follow(found: Found, name: str, linked_folders: list[str], linked_images: list[str]) -> None:
    status = _status(found.folder / name)
    if status is None:
        found.links_to_nothing.append(name)
    elif stat.S_ISDIR(status.st_mode):
        linked_folders.append(name)
    elif not is_image_name(name):
        found.left_out[_ending(name)] += 1
    elif stat.S_ISREG(status.st_mode):
        linked_images.append(name)
    else:
        found.left_out[NO_FILE] += 1


def _add_linked_images(found: Found, linked_images: Sequence[str]) -> None:
    found.has_linked_files = bool(linked_images)
    if not linked_images:  # the files themselves are asked for only where a link may lead to one of them
        return
    known = set(found.identities().values())
    for name in sorted(linked_images, key=os.fsencode):
        status = _status(found.folder / name)
        identity = (status.st_dev, status.st_ino) if status is not None else None
        if identity in known:
            found.left_out[COUNTED_IMAGE] += 1
        else:
            found.names.append(name)
        if identity is not None:
            known.add(identity)


def _is_new(folder: Path, known: set[Identity], found: Found) -> bool:
    """Whether a folder is met for the first time; from now on it is known."""
    status = _status(folder)
    if status is None:
        return not found.folders  # the folder that is searched: reading it says what is wrong
    identity = (status.st_dev, status.st_ino)
    if identity in known:
        return False
    known.add(identity)
    found.folders.add(identity)
    return True


def _status(path: Path) -> os.stat_result | None:
    """Of what a path leads to; None where it leads nowhere (raises InputError where that may not be known)."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in LEADS_NOWHERE:
            return None
        raise cannot_be_read(path, error) from None


def is_image_name(name: str) -> bool:
    """Whether a name ends as those of images do, in whatever case."""
    return _ending(name) in SUFFIXES


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or NO_ENDING


def left_out_words(left_out: Mapping[str, int]) -> str:
    """What was left out, in words: the commonest endings, and other reasons, of which each folder may be one."""
    counts = {what: count for what, count in left_out.items() if count}
    endings = sorted((what for what in counts if what.startswith(".")), key=lambda what: (-counts[what], what))
    others = sorted(what for what in counts if not what.startswith("."))
    said = [f"{counts[what]:,} × {what}" for what in [*endings[:_ENDINGS_SHOWN], *others[:_REASONS_SHOWN]]]
    for more, words in ((endings[_ENDINGS_SHOWN:], "with other endings"), (others[_REASONS_SHOWN:], "of other kinds")):
        said += [f"{sum(counts[what] for what in more):,} {words}"] if more else []
    return ", ".join(said)
