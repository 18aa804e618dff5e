"""What a training run's folder says about its weights: what they started from, and what they scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdvae_lr.files.paths import cannot_be_read, entries
from vdvae_lr.files.run_folder import IMAGES, SETTINGS_NAME, iteration_of, read_log

_BOUND_SPLITS = {"test": "test", "eval": "validation"}


@dataclass(frozen=True)
class RunRecord:
    """What is known of the run that a checkpoint belongs to.

    Attributes:
        name: name of the run.
        iteration: iteration of the checkpoint.
        settings: the run's settings, flat, as on the command line.
        split: the images that `bound` was measured on; empty if the run measured none up to this checkpoint.
        bound: the log's record (names with units) of the last held-out bound up to this checkpoint.
        bound_iteration: iteration at which `bound` was measured.
        picture: the last picture up to this checkpoint, if there is one.
    """

    name: str
    iteration: int
    settings: Mapping[str, Any]
    split: str = ""
    bound: Mapping[str, Any] = field(default_factory=dict)
    bound_iteration: int = 0
    picture: Path | None = None


@dataclass(frozen=True)
class Start:
    """Weights that a run's settings name as its start.

    Attributes:
        name: name of the weights, as `find_weights` takes it; empty: none, the run starts from random weights.
        ema: take the averaged weights, if there are also those before averaging.
    """

    name: str
    ema: bool


def start_of_run(settings: Mapping[str, Any]) -> tuple[Start, Start]:
    """What a run's weights start from, and what their average starts from.

    `restore_path` names weights before averaging, `restore_ema_path` averaged ones; if only one is given, it serves for
    both. `pretrained` serves for both if neither is given.

    Args:
        settings: the run's settings, flat, as on the command line.
    """
    named = {name: str(settings.get(name) or "none") for name in ("restore_path", "restore_ema_path", "pretrained")}
    starts = {name: Start("" if value == "none" else value, name != "restore_path") for name, value in named.items()}
    raw, averaged, pretrained = starts.values()
    return (
        next((start for start in (raw, averaged) if start.name), pretrained),
        next((start for start in (averaged, raw) if start.name), pretrained),
    )


def read_run_record(checkpoint: Path) -> RunRecord | None:
    """The record of the run that `checkpoint` lies in; None if it lies in no run.

    Raises:
        InputError: a file of the run may not be read.
    """
    run = checkpoint.resolve().parent.parent
    try:
        settings = dict(json.loads((run / SETTINGS_NAME).read_text(encoding="utf-8")))
        iteration = iteration_of(checkpoint)
    except PermissionError as error:
        raise cannot_be_read(run / SETTINGS_NAME, error) from None
    except (OSError, ValueError, TypeError):
        return None
    records, _ = read_log(run)
    bound = _last_bound([record for record in records if record["iteration"] <= iteration])
    drawn = [path for path in entries(run / IMAGES) if path.match("step-*.png")]
    pictures = [path for path in drawn if path.stem <= f"step-{iteration:08d}"]
    return RunRecord(
        run.name,
        iteration,
        settings,
        _BOUND_SPLITS.get(bound.get("kind", ""), ""),
        bound,
        bound.get("iteration", 0),
        max(pictures, default=None),
    )


def _last_bound(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The newest bound among a log's records; the test split's, if both splits were measured at that iteration."""
    bounds = [record for record in records if record["kind"] in _BOUND_SPLITS]
    return max(bounds, key=lambda record: (record["iteration"], record["kind"] == "test"), default={})
