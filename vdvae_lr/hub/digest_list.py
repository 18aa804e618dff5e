"""`SHA256SUMS`: the digests of a folder's files, in the form that `sha256sum --check` reads.

Every folder of weights that this program writes has one, and loading compares with it. Folders without one (of other
programs, of earlier versions) load unchecked. A list says nothing about files that it does not name.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from vdvae_lr.errors import InputError
from vdvae_lr.files.download import file_sha256
from vdvae_lr.files.paths import cannot_be_read, is_file

DIGESTS_NAME = "SHA256SUMS"
_LARGEST = 1 << 20  # bytes
_LINE = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")  # a star: read as binary; a backslash: an escaped name


def write_digests(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of the files `names` in `folder` (raises OSError, or InputError where one cannot be read)."""
    lines = [f"{file_sha256(folder / name, shown=False)}  {name}\n" for name in sorted(names)]
    (folder / DIGESTS_NAME).write_text("".join(lines), encoding="utf-8", newline="\n")


def listed_digests(folder: Path) -> dict[str, str]:
    """The digests in a folder's SHA256SUMS; none where it has none (raises InputError as `read_digests`)."""
    path = folder / DIGESTS_NAME
    return read_digests(path) if is_file(path) else {}


def read_digests(path: Path) -> dict[str, str]:
    """Digests in lower case by file name, of files in the folder of the list itself.

    Raises:
        InputError: the list cannot be read, or a line of it is no digest with a name.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise cannot_be_read(path, error) from None
    lines = [line.rstrip("\r") for line in content.decode("utf-8-sig", errors="replace").split("\n")]
    found = [_LINE.fullmatch(line) for line in lines if line.strip() and not line.startswith("#")]
    digests = {match[2]: match[1].lower() for match in found if match is not None and _is_plain(match[2])}
    if not found or None in found or len(content) > _LARGEST:
        raise InputError(
            f"{path} is damaged: each line must be the SHA-256 and the name of a file; fetch or make its folder again, "
            "or delete it to load the others unchecked."
        )
    return digests


def _is_plain(name: str) -> bool:
    """Whether it is a file's name inside the folder: a list from strangers may ask for `../x` or `/dev/zero`."""
    return "/" not in name and name.isprintable()


def check_listed_digest(path: Path, remedy: str = "") -> None:
    """Compare a file with the SHA256SUMS beside it, where that lists it.

    Args:
        path: of the file.
        remedy: what a person can do, as the end of a sentence; empty: fetch or make it again, or keep the change.

    Raises:
        InputError: another content, or one of the two cannot be read.
    """
    expected = listed_digests(path.parent).get(path.name)
    if expected is not None and file_sha256(path) != expected:
        remedy = remedy or f"fetch or make it again, or delete {DIGESTS_NAME} if you changed the file yourself"
        raise InputError(
            f"{path} is damaged or was changed: its SHA-256 is not the one that {DIGESTS_NAME} beside it lists; "
            f"{remedy}."
        )
