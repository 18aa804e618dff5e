"""Digests of files, and `SHA256SUMS`, the list of the SHA-256 digests of a folder's files.

Every folder of weights that this program writes has such a list, in the form that `sha256sum --check` reads. Loading
compares each file with it. A file that no list names loads unchecked: other programs write no list.
"""

import gzip
import hashlib
import os
import re
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, is_file
from vdvae_lr.files.progress_bar import progress_bar

DIGESTS_NAME = "SHA256SUMS"
_CHUNK = 1 << 20  # bytes read at once
_LARGEST_LIST = 1 << 20  # bytes
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")  # "*" marks a binary file, "\" a name with escapes
_SETTLED_NS = 2_000_000_000  # a file system may give two changes within its clock's tick the same time
_known: dict[tuple[str | int, ...], str] = {}  # digests that this process has computed, by the state of the file


def file_sha256(path: Path, unpacked: bool = False, shown: bool = True) -> str:
    """Hexadecimal SHA-256 of a file (arguments and errors as `file_digest`)."""
    return file_digest(path, "sha256", unpacked, shown)


def file_digest(path: Path, algorithm: str, unpacked: bool = False, shown: bool = True) -> str:
    """Hexadecimal digest of a file. A process reads a file once, unless the file changes or is seconds old.

    Args:
        path: the file.
        algorithm: sha256, or md5 where nobody publishes a better one: it tells damage, but not intent.
        unpacked: digest the content inside the file's gzip wrapping instead.
        shown: show a progress bar; False next to work that has a display of its own.

    Raises:
        InputError: the file cannot be read, or its gzip wrapping is damaged.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            times = (status.st_mtime_ns, status.st_ctime_ns)
            changed = max(times)  # people can set the first one only
            state = (algorithm, status.st_dev, status.st_ino, status.st_size, *times, unpacked)
            if state in _known:
                return _known[state]
            with progress_bar(shown) as bar:
                watched = bar.wrap_file(file, total=status.st_size, description=f"checking {path.name}")
                content = gzip.GzipFile(fileobj=watched) if unpacked else watched
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run the same command again") from error
    except OSError as error:
        raise cannot_be_read(path, error) from error
    if time.time_ns() - changed > _SETTLED_NS:
        _known[state] = digest.hexdigest()
    return digest.hexdigest()


def write_digests(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of the files `names` in `folder` (raises OSError; InputError if one cannot be read)."""
    lines = [f"{file_sha256(folder / name, shown=False)}  {name}\n" for name in sorted(names)]
    (folder / DIGESTS_NAME).write_text("".join(lines), encoding="utf-8", newline="\n")


def listed_digests(folder: Path) -> dict[str, str]:
    """The digests in a folder's SHA256SUMS; empty if it has none (raises InputError as `read_digests`)."""
    path = folder / DIGESTS_NAME
    return read_digests(path) if is_file(path) else {}


def read_digests(path: Path) -> dict[str, str]:
    """Digests in lower case by file name. Names outside the list's own folder are left out.

    Raises:
        InputError: the list cannot be read, or one of its lines is not a digest and a name.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_LIST + 1)
    except OSError as error:
        raise cannot_be_read(path, error) from None
    lines = [line.rstrip("\r") for line in content.decode("utf-8-sig", errors="replace").split("\n")]
    found = [_LINE.fullmatch(line) for line in lines if line.strip() and not line.startswith("#")]
    digests = {match[2]: match[1].lower() for match in found if match is not None and _is_plain(match[2])}
    if not found or None in found or len(content) > _LARGEST_LIST:
        raise InputError(
            f"{path} is damaged: each line must be the SHA-256 and the name of a file; fetch or make its folder again, "
            "or delete it to load the others unchecked."
        )
    return digests


def _is_plain(name: str) -> bool:
    """Whether a name stays in the folder: a list from strangers may ask for `../x` or `/dev/zero`."""
    return "/" not in name and name.isprintable()


def check_listed_digest(path: Path, remedy: str = "") -> None:
    """Compare a file with the SHA256SUMS beside it, if that lists the file.

    Args:
        path: the file.
        remedy: what a person can do, as the end of a sentence; empty: fetch or make it again, or keep the change.

    Raises:
        InputError: the digests differ, or the file or the list cannot be read.
    """
    expected = listed_digests(path.parent).get(path.name)
    if expected is not None and file_sha256(path) != expected:
        remedy = remedy or f"fetch or make it again, or delete {DIGESTS_NAME} if you changed the file yourself"
        raise InputError(
            f"{path} is damaged or was changed: its SHA-256 is not the one that {DIGESTS_NAME} beside it lists; "
            f"{remedy}."
        )
