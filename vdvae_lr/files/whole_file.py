"""Files that are written whole or not at all: under a temporary name in the same folder, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdvae_lr.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file or make a folder at the yielded path; when the block ends well it becomes `path`, else it goes.

    The folder is made where needed.

    Raises:
        InputError: the disk refused; what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            remove(temporary)  # what a killed process left
            yield temporary
            temporary.replace(path)
        finally:
            remove(temporary)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another folder."
        ) from None


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
