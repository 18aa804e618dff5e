"""What a training run's folder says of the weights in it: settings, held-out bound, pictures.

RUN/settings.json    the resolved settings, flat
    log.jsonl        one JSON line a record
    images/          pictures by iteration
    checkpoints/     step-ITERATION, each a folder of weights
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdvae_lr.download import file_sha256
from vdvae_lr.errors import InputError

SETTINGS_NAME = "settings.json"
LOG_NAME = "log.jsonl"
IMAGES = "images"
CHECKPOINTS = "checkpoints"
EMA_NAME = "ema.safetensors"
DIGESTS_NAME = "SHA256SUMS"
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
    """The checkpoints in a run's folder for them, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit())


def listed_digests(checkpoint: Path) -> dict[str, str]:
    """Digests by file name, from a checkpoint's SHA256SUMS.

    Raises:
        InputError: it is missing, or no text.
    """
    try:
        lines = (checkpoint / DIGESTS_NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise InputError(f"checkpoint {checkpoint} is damaged: its {DIGESTS_NAME} cannot be read.") from None
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def check_listed_digest(path: Path) -> None:
    """Compare a file with the SHA256SUMS beside it, where there are any (raises InputError)."""
    if not (path.parent / DIGESTS_NAME).is_file():
        return
    if file_sha256(path) != listed_digests(path.parent).get(path.name, ""):
        raise InputError(f"{path} is damaged: {DIGESTS_NAME} lists another content; take an earlier checkpoint.")


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
    """The record of the run that `checkpoint` lies in; None where it lies in none."""
    run = checkpoint.resolve().parent.parent
    try:
        settings = dict(json.loads((run / SETTINGS_NAME).read_text(encoding="utf-8")))
        iteration = int(checkpoint.name.removeprefix("step-"))
    except (OSError, ValueError, TypeError):
        return None
    split, bound = _last_bound(run / LOG_NAME, iteration)
    pictures = [path for path in (run / IMAGES).glob("step-*.png") if path.stem <= f"step-{iteration:08d}"]
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
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line that a crash cut short
        if isinstance(record, dict):
            yield record
