"""What a training run's folder says of the weights in it: settings, held-out bound, pictures.

RUN/settings.json    the resolved settings, flat
    log.jsonl        one JSON line a record
    images/          pictures by iteration
    checkpoints/     step-ITERATION, each a folder of weights
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, entries, is_file

SETTINGS_NAME = "settings.json"
LOG_NAME = "log.jsonl"
IMAGES = "images"
CHECKPOINTS = "checkpoints"
EMA_NAME = "ema.safetensors"
_CHECKPOINT = re.compile(r"step-\d+")
_BOUND_SPLITS = {"test": "test", "eval": "validation"}


@dataclass(frozen=True)
class RunRecord:
    """What is known of the run that a checkpoint belongs to.

    Attributes:
        name: of the run.
        iteration: of the checkpoint.
        settings: flat, as on the command line.
        split: which images `bound` is of; empty where the run measured none up to this checkpoint.
        bound: the log's record (names with units) of the last held-out bound up to this checkpoint.
        bound_iteration: where it was measured.
        picture: the last picture up to this checkpoint, if any.
    """

    name: str
    iteration: int
    settings: Mapping[str, Any]
    split: str = ""
    bound: Mapping[str, Any] = field(default_factory=dict)
    bound_iteration: int = 0
    picture: Path | None = None


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder for them, oldest first.

    Raises:
        InputError: the folder may not be read.
    """
    return sorted(path for path in entries(folder) if _CHECKPOINT.fullmatch(path.name))


def newest_checkpoint(run: Path) -> Path:
    """The checkpoint of a run with the most iterations.

    Raises:
        InputError: there is none.
    """
    newest = max(complete_checkpoints(run / CHECKPOINTS), default=None)
    if newest is None:
        raise InputError(f"run {run} has no checkpoint yet; let it save one, or choose other weights.")
    return newest


def read_run_record(checkpoint: Path) -> RunRecord | None:
    """The record of the run that `checkpoint` lies in; None where it lies in none.

    Raises:
        InputError: a file of the run may not be read.
    """
    run = checkpoint.resolve().parent.parent
    try:
        settings = dict(json.loads((run / SETTINGS_NAME).read_text(encoding="utf-8")))
        iteration = int(checkpoint.name.removeprefix("step-"))
    except PermissionError as error:
        raise cannot_be_read(run / SETTINGS_NAME, error) from None
    except (OSError, ValueError, TypeError):
        return None
    split, bound = _last_bound(run / LOG_NAME, iteration)
    drawn = [path for path in entries(run / IMAGES) if path.match("step-*.png")]
    pictures = [path for path in drawn if path.stem <= f"step-{iteration:08d}"]
    return RunRecord(
        run.name,
        iteration,
        settings,
        split,
        bound,
        int(bound.get("iteration", 0)),
        max(pictures, default=None),
    )


def _last_bound(log: Path, iteration: int) -> tuple[str, Mapping[str, Any]]:
    """The newest bound; of two as new, that of the test split. An older one is of other weights."""
    found = [
        record
        for record in _records(log)
        if record.get("kind") in _BOUND_SPLITS and record.get("iteration", iteration + 1) <= iteration
    ]
    newest = max(found, key=lambda record: (record["iteration"], record["kind"] == "test"), default=None)
    return (_BOUND_SPLITS[newest["kind"]], newest) if newest is not None else ("", {})


def _records(log: Path) -> Iterator[dict[str, Any]]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace") if is_file(log) else ""
    except OSError as error:
        raise cannot_be_read(log, error) from None
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line that a crash cut short
        if isinstance(record, dict):
            yield record
