"""Makes a run's folder, goes on with it, or moves it aside. Nothing is overwritten, and one process trains there at a
time.

`files/run_folder.py` says what lies in it. The system releases the lock however the process ends.
"""

import json
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read
from vdvae_lr.files.run_folder import CHECKPOINTS, IMAGES, SETTINGS_NAME, complete_checkpoints
from vdvae_lr.files.whole_file import remove, write_whole
from vdvae_lr.training.settings import NEUTRAL, RunSettings, Settings

LOCK_NAME = ".lock"
_HOLDER_NAME = ".lock-holder"  # opening the lock itself would empty it


def folder_of(run_settings: RunSettings) -> Path:
    """The run's folder, which may not exist yet."""
    return Path(run_settings.save_dir) / run_settings.name


@contextmanager
def claimed_folder(settings: Settings) -> Iterator[str]:
    """Make the run's folder ready to write to, and hold its lock until the block ends.

    Yields a sentence for the person if an earlier run was moved aside, else an empty text. Settings are recorded if
    there were none. Those of an earlier start stay until the caller replaces them. Raises InputError if the folder
    cannot be written, is in use, belongs to other settings, or is not a run's.
    """
    folder = folder_of(settings.run)
    notice = ""
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
            record_settings(settings)
        yield notice
    finally:
        lock.release()


def record_settings(settings: Settings) -> None:
    """Write the run's `settings.json` (raises InputError if the disk refuses)."""
    write_whole(folder_of(settings.run) / SETTINGS_NAME, (json.dumps(settings.flat(), indent=2) + "\n").encode())


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
    """Remove what a killed process did not finish writing or removing. Only the run itself writes in these folders."""
    for place in (folder, folder / IMAGES, folder / CHECKPOINTS):
        for path in place.glob(".*.part"):
            with suppress(OSError):
                remove(path)


def _moved_aside(folder: Path) -> Path:
    if folder.is_dir():
        _locked(folder).release()  # raises InputError if the run is in use
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
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
    neutral = NEUTRAL if settings.looks_at_micro_batches else NEUTRAL | {"n_batch"}
    changed = _differences(settings.flat(), earlier, neutral)
    if changed and complete_checkpoints(folder / CHECKPOINTS):  # a run that saved nothing has nothing to lose
        raise InputError(
            f"run {folder} has other settings ({'; '.join(changed)}); choose another --desc to keep both, "
            "or --fresh to move the earlier run aside."
        )


def _differences(settings: Mapping[str, Any], earlier: Mapping[str, Any], neutral: Collection[str]) -> list[str]:
    """`name: earlier → now` for each setting that changes what is computed, as `neutral` ones do not.

    If an earlier version did not have a setting, the run used what is now its default.
    """
    earlier = Settings().flat() | dict(earlier)
    names = sorted(name for name in settings.keys() - neutral if name in earlier)
    pairs = {name: (earlier[name], settings[name]) for name in names}
    return [
        f"{name}: {before!r} → {now!r}"
        for name, (before, now) in pairs.items()
        if _without_last_slash(before) != _without_last_slash(now)
    ]


def _without_last_slash(value: object) -> object:
    """`runs/first` for `runs/first/`: shells complete a folder's name with a slash."""
    return value.rstrip("/") if isinstance(value, str) else value
