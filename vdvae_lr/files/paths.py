"""Paths as people write them, and what lies at a path.

A leading `~` is the home folder, as in a shell, and a relative path starts in the working folder. Both hold for every
setting that names a file or folder, wherever the setting comes from.

A file without permission to look at it is neither absent nor damaged. Without permission, `Path.is_file` and its like
raise an exception or return False, depending on the Python version. The functions here raise `InputError`.
"""

import errno
import os
import stat
from pathlib import Path

from vdvae_lr.errors import InputError


class UnreadableError(InputError):
    """Something exists and may not be read; it may well be sound."""


_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
LEADS_NOWHERE = _ABSENT | {errno.ELOOP}
"""Errors of a link that leads to nothing, or in a circle."""
LONGEST_NAME = 255
"""Most bytes in the name of one file or folder, on all usual file systems."""


def expanded(text: str, setting: str = "") -> str:
    """`text` with the home folder in place of a leading `~` or `~USER`; other text stays as it is.

    Args:
        text: a path, or text that may be one.
        setting: its name in messages.

    Raises:
        InputError: no such home folder is known, or the text has a NUL character.
    """
    without_nul(text, setting)
    if not text.startswith("~"):
        return text
    home, _, _ = text.partition("/")
    if os.path.expanduser(home) == home:  # noqa: PTH111 # Path's raises RuntimeError
        whose = f"of user '{home[1:]}'" if home != "~" else "of this user (HOME is not set)"
        raise InputError(
            f"{_subject(text, setting)}: no home folder {whose} is known; write the whole path (./~ begins a name that "
            "really begins with ~)."
        )
    return os.path.expanduser(text)  # noqa: PTH111


def path_of(text: str | Path, setting: str = "") -> Path:
    """The path that `text` names (raises InputError as `expanded`)."""
    return Path(expanded(str(text), setting))


def without_nul(text: str, setting: str = "") -> str:
    """`text` itself; raises InputError if it has a NUL character, which no name may have."""
    if "\0" in text:
        raise InputError(f"{_subject(text, setting)} has a NUL character, which no name may have; remove it.")
    return text


def _subject(text: str, setting: str) -> str:
    shown = text if text.isprintable() and len(text) <= 200 else ascii(text)[1:-1][:200]
    return f"{setting or 'path'} '{shown}'"


def exists(path: Path) -> bool:
    """Whether something is at `path` (raises InputError without permission to look)."""
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Whether a regular file is at `path` (raises InputError without permission to look)."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether a folder is at `path` (raises InputError without permission to look)."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in no order; an empty list if there is no folder.

    Raises:
        InputError: the folder may not be read.
    """
    try:
        return list(folder.iterdir())
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise cannot_be_read(folder, error) from None


def cannot_be_read(path: Path | str, error: OSError) -> UnreadableError:
    """The error for a file or folder that exists but cannot be read."""
    if isinstance(error, PermissionError):
        remedy = "give this user the right to read it and to enter the folders above it"
    else:
        remedy = "check the path and its disk"
    return UnreadableError(f"{path} cannot be read ({error.strerror or error}); {remedy}.")


def _mode(path: Path) -> int | None:
    if "\0" in str(path) or any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        return None  # nothing can be there
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise cannot_be_read(path, error) from None
