"""Makes a run's folder, goes on with it, or moves it aside; nothing is overwritten, and one process trains there at a
time.

`files/run_folder.py` says what lies in it. The system releases the lock however the process ends.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read
from vdvae_lr.files.run_folder import CHECKPOINTS, IMAGES, SETTINGS_NAME, complete_checkpoints
from vdvae_lr.files.whole_file import remove, write_whole
from vdvae_lr.training.settings import NEUTRAL, Settings

LOCK_NAME = ".lock"
_HOLDER_NAME = ".lock-holder"  # opening the lock itself would empty it


@contextmanager
def run_folder(settings: Settings) -> Iterator[tuple[Path, str | None]]:
    """The run's folder, locked and ready to write to, and a sentence for the person if an earlier run was moved aside.

    Settings are recorded where there were none; those of an earlier start stay until the caller replaces them.

    Raises:
        InputError: the folder cannot be written, is in use, belongs to other settings, or is not a run's.
    """
    folder = Path(settings.run.save_dir) / settings.run.name
    notice = None
    try:
        if folder.exists() and settings.run.fresh:
            notice = f"The earlier run was moved to {_moved_aside(folder)}."
        elif folder.exists():
            _check_same_settings(folder, settings)
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
        _clear_leftovers(folder)
    except OSError as error:
        raise InputError(
            f"run folder {folder} cannot be written ({error.strerror or error}); choose another --save_dir."
        ) from None
    try:
        if not (folder / SETTINGS_NAME).exists():
            record_settings(folder, settings)
        yield folder, notice
    finally:
        lock.release()


def record_settings(folder: Path, settings: Settings) -> None:
    """Write `settings.json` (raises InputError where the disk refuses)."""
    write_whole(folder / SETTINGS_NAME, (json.dumps(settings.flat(), indent=2) + "\n").encode())


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK_NAME)
    holder = folder / _HOLDER_NAME
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = f" ({holder.read_text(encoding='utf-8')})" if holder.is_file() else ""
        raise InputError(
            f"run {folder} is in use by another run{who}; wait for its end, or choose another --desc."
        ) from None
    holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return lock


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed process did not finish writing or removing; only the run itself writes in these folders."""
    for place in (folder, folder / IMAGES, folder / CHECKPOINTS):
        for path in place.glob(".*.part"):
            with suppress(OSError):
                remove(path)


def _moved_aside(folder: Path) -> Path:
    if folder.is_dir():
        _locked(folder).release()  # refuses to move a run that is going on
    aside = _free_name(folder)
    folder.rename(aside)
    return aside


def _check_same_settings(folder: Path, settings: Settings) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a run's folder; choose another --desc or --save_dir.")
    if not any(folder.iterdir()):
        return
    try:
        earlier = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8"))
    except PermissionError as error:
        raise cannot_be_read(folder / SETTINGS_NAME, error) from None
    except (OSError, ValueError):
        raise InputError(f"{folder} is not a run of this program; choose another --desc or --save_dir.") from None
    changed = differences(settings.flat(), earlier)
    if changed and complete_checkpoints(folder / CHECKPOINTS):  # a run that saved nothing has nothing to go on from
        raise InputError(
            f"run {folder} has other settings ({'; '.join(changed)}); choose another --desc to keep both, "
            "or --fresh to move the earlier run aside."
        )


def differences(settings: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """`name: earlier → now` for each setting that changes what is computed.

    A setting that an earlier version did not have counts as its default: that is what the run did.
    """
    earlier = Settings().flat() | dict(earlier)
    names = sorted(name for name in settings.keys() - NEUTRAL if name in earlier)
    return [
        f"{name}: {earlier[name]!r} → {settings[name]!r}"
        for name in names
        if _without_last_slash(settings[name]) != _without_last_slash(earlier[name])
    ]


def _without_last_slash(value: object) -> object:
    """`runs/first/`, as shells complete a folder's name, is `runs/first`."""
    return value.rstrip("/") if isinstance(value, str) else value


def _free_name(folder: Path) -> Path:
    number = 1
    while (candidate := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    return candidate
