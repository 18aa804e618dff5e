"""A zip archive as folders of images, read in place: nothing is extracted, so a name leads nowhere.

Each process opens the archive for itself at its first image, since processes that share an open file also share the
place in it. Names are as if the archive were unpacked. So a folder and its archive have the same images in the same
parts and order.
"""

import errno
import io
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from vdvae_lr.datasets.array_files import DataFileError
from vdvae_lr.datasets.decoding import LARGEST_FILE, UnreadableImageError
from vdvae_lr.datasets.finding import SOUND_IMAGE, Found, Identity, is_image_name
from vdvae_lr.datasets.zipped_images import content_of, opened_zip
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import is_file

_WINDOWS = 0  # the system of archives whose names may be written with backslashes
_LEADS_OUT = "name that leads out of the archive"


def archive_in(path: Path) -> Path | None:
    """The file that `path` is, or that it goes through, as `photos.zip/faces` does; None if it goes through none."""
    return next(filter(is_file, (path, *path.parents)), None)


class ZippedFolder:
    """The folders inside the zip archive at `archive`, as an `ImageTree`.

    Raises:
        InputError: whenever it first reads an archive that is damaged or gone.
    """

    remedy = SOUND_IMAGE

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._opened: zipfile.ZipFile | None = None
        self._process = 0  # that opened it

    def __getstate__(self) -> Path:
        return self._archive

    def __setstate__(self, archive: Path) -> None:
        ZippedFolder.__init__(self, archive)

    def top(self, root: Path) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files right in `root`, without hidden ones."""
        folders, files = set[str](), set[str]()
        for name, info in self._below(root):
            first, *deeper = name.split("/")
            if not _is_hidden(name) and not _leads_out(name):
                (folders if deeper or info.is_dir() else files).add(first)
        return sorted(folders), sorted(files)

    def search(self, folder: Path, already_read: Iterable[Identity] = ()) -> Found:
        """Find the images in and below `folder`. No other folder of the archive leads there."""
        found = Found(folder)
        for name, info in self._below(folder):
            reason = _left_out_as(name, info)
            if reason:
                found.left_out[reason] += 1
            elif not info.is_dir():
                found.names.append(name)
        found.names.sort(key=os.fsencode)
        return found

    def open(self, path: Path) -> io.BytesIO:
        """The unpacked file at `path` (raises UnreadableImageError as `content_of`, and if it is not there)."""
        info = self._entries.get(path.relative_to(self._archive).as_posix())
        if info is None:
            raise UnreadableImageError("not in the archive") from FileNotFoundError(errno.ENOENT, "not there")
        return io.BytesIO(content_of(self._zip, info, LARGEST_FILE, "image that is decoded"))

    def _below(self, folder: Path) -> Iterator[tuple[str, zipfile.ZipInfo]]:
        """The files and folders in and below a folder, by the rest of their names."""
        inside = folder.relative_to(self._archive).as_posix()
        start = "" if inside == "." else f"{inside}/"
        for name, info in self._entries.items():
            if name.startswith(start) and name != start:
                yield name.removeprefix(start), info

    @property
    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._process != os.getpid():
            try:
                self._opened = opened_zip(self._archive)
            except DataFileError as error:
                raise InputError(f"{error}: name a folder or a sound zip archive of images with --data_root") from error
            self._process = os.getpid()
        return self._opened

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        """All files and folders by name. If several have one name, the last one counts, as when they are unpacked."""
        return {_name_of(info): info for info in self._zip.infolist()}


def _name_of(info: zipfile.ZipInfo) -> str:
    name = info.filename.replace("\\", "/") if info.create_system == _WINDOWS else info.filename
    return os.fsdecode(PurePosixPath(name).as_posix().encode())  # as the file would be called on this system


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _left_out_as(name: str, info: zipfile.ZipInfo) -> str:
    """Why an entry is left out; empty for a folder, and for a file to be read as an image."""
    if _leads_out(name):
        return _LEADS_OUT
    if info.is_dir():
        return ""
    if _is_hidden(name):
        return "hidden"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "link in an archive"
    return "" if is_image_name(name) else PurePosixPath(name).suffix.lower() or "file without an ending"
