"""Whether a folder for results can be written: asked before hours of work rather than after them."""

import tempfile
from functools import partial
from pathlib import Path

from vdvae_lr.errors import InputError
from vdvae_lr.processes.world import World


def check_writable(folder: Path, world: World) -> None:
    """Make the folder where it is missing; every process must call this, and the main one looks.

    Raises:
        InputError: no file can be made in it; where other processes are, they end with the main one.
    """
    world.on_main(partial(_check_here, folder))


def _check_here(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"folder {folder} cannot be written ({error.strerror or error}); choose another one with --out."
        ) from None
