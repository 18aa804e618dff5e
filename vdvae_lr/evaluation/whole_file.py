"""Files that are written whole or not at all."""

from pathlib import Path

from vdvae_lr.errors import InputError


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name in the same folder, then rename it; the folder is made where needed.

    Raises:
        InputError: the folder cannot be written to; what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free space or choose another folder."
        ) from None
