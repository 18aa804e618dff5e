"""What every command does first, before torch is imported: make streams and environment of this process usable."""

import os
from pathlib import Path

from vdvae_lr.processes.streams import mend_streams

_LONGEST_TEMPORARY_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes. multiprocessing puts sockets into it, and the whole path of a socket must not have more than 107."""
_SHORT_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def prepare_process() -> None:
    """Call it before anything is printed and before torch is imported; a second call does nothing."""
    mend_streams()
    _shorten_temporary_folder()
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip("0"):  # rich would print nothing at all in a width of 0
            del os.environ[name]


def _shorten_temporary_folder() -> None:
    """Processes that read images meet at sockets in the temporary folder: another one where its name is too long."""
    chosen = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "")  # as tempfile looks for it
    if len(os.fsencode(Path(chosen).absolute())) <= _LONGEST_TEMPORARY_FOLDER:
        return
    usable = (name for name in _SHORT_TEMPORARY_FOLDERS if os.access(name, os.W_OK | os.X_OK))
    short = next(usable, None)
    if short is not None:
        os.environ["TMPDIR"] = short
