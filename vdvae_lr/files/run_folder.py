"""The folder of a training run: what lies where, its checkpoints, and its log.

RUN/settings.json                         the resolved settings, flat, by their command-line names
    log.jsonl                             one JSON object a line; each has a `kind` and an `iteration`
    tensorboard/                          the same numbers as curves, and the pictures
    wandb/, wandb.json, trackio.json      what those trackers keep, if the run has them (`--track`)
    images/step-ITERATION.png             reconstructions and samples
    checkpoints/step-ITERATION/           a folder of weights, and what the run needs to go on
    evaluation/                           what `vdvae-lr evaluate RUN` wrote
    .lock                                 locked while a process trains here
"""

import json
import re
from pathlib import Path
from typing import Any, TypeGuard

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, entries, is_file

SETTINGS_NAME = "settings.json"
LOG_NAME = "log.jsonl"
IMAGES = "images"
CHECKPOINTS = "checkpoints"
EMA_NAME = "ema.safetensors"
"""The averaged weights in a checkpoint. The weights before averaging lie beside them."""
_CHECKPOINT = re.compile(r"step-\d+")
_MOST_ITERATIONS = 2**53  # a float holds every whole number up to here


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's `checkpoints` folder, oldest first (raises InputError if it may not be read)."""
    return sorted((path for path in entries(folder) if _CHECKPOINT.fullmatch(path.name)), key=iteration_of)


def iteration_of(checkpoint: Path) -> int:
    """The iteration after which a checkpoint was saved, from its name (raises ValueError for another name)."""
    return int(checkpoint.name.removeprefix("step-"))


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of a run with the most iterations.

    Raises:
        InputError: the run has none.
    """
    checkpoints = complete_checkpoints(run / CHECKPOINTS)
    if not checkpoints:
        raise InputError(f"run {run} has no checkpoint yet; let it save one, or choose other weights.")
    return checkpoints[-1]


def read_log(run: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a run's log, and how many of its lines are damaged.

    Damaged lines are left out. A last line that is not finished is not counted: a run may be writing it, or a crash cut
    it short. A run without a log has no records.

    Raises:
        InputError: the log may not be read.
    """
    path = run / LOG_NAME
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if is_file(path) else ""
    except OSError as error:
        raise cannot_be_read(path, error) from None
    records, damaged = [], 0
    for line in text.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if _is_record(record):
            records.append(record)
        else:
            damaged += line.endswith("\n")
    return records, damaged


def _is_record(value: object) -> TypeGuard[dict[str, Any]]:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return False
    iteration = value.get("iteration")
    return type(iteration) is int and 0 <= iteration < _MOST_ITERATIONS
