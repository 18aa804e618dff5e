"""Files that are written whole or not at all: under a temporary name in the same folder, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdvae_lr.errors import InputError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors while `path` is written into one sentence (raises InputError)."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another folder."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file, or make a folder, at the yielded path.

    If the block succeeds, the result replaces `path`; else it is removed. The folder that holds `path` is made if
    needed.

    Raises:
        InputError: the system refused; what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            remove(temporary)  # what a killed process left
            yield temporary
            temporary.replace(path)
        finally:
            remove(temporary)


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to), or a folder with everything in it; raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all (raises InputError as `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
