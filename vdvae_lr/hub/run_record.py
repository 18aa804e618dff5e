"""What a training run's folder says about its weights: what they started from, and what they scored."""

import json
from collections.abc import Mapping
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
        bound: the log's record of the last held-out bound up to this checkpoint; empty if there is none.
        picture: the last picture up to this checkpoint, if there is one.
    """

    name: str
    iteration: int
    settings: Mapping[str, Any]
    bound: Mapping[str, Any] = field(default_factory=dict)
    picture: Path | None = None

    @property
    def split(self) -> str:
        """The images that `bound` was measured on; empty if there is no bound."""
        return _BOUND_SPLITS.get(self.bound.get("kind", ""), "")

    @property
    def is_measured(self) -> bool:
        """Whether the bound is a number; the log has null for a bound that is not finite."""
        return self.bound.get("negative_elbo_bits_per_dim") is not None


@dataclass(frozen=True)
class Start:
    """Weights that a run's settings name as its start.

    Attributes:
        name: name of the weights, as `find_weights` takes it; empty: the run starts from random weights.
        ema: take the averaged weights, if there are also those before averaging.
    """

    name: str
    ema: bool


def start_of_run(settings: Mapping[str, Any]) -> tuple[Start, Start]:
    """What a run's weights start from, and what their average starts from.

    In the flat settings, `restore_path` names weights before averaging, and `restore_ema_path` averaged ones. If only
    one of them is given, it serves for both. If neither is given, `pretrained` serves for both.
    """
    named = {name: str(settings.get(name) or "none") for name in ("restore_path", "restore_ema_path", "pretrained")}
    raw, averaged, pretrained = (
        Start("" if value == "none" else value, name != "restore_path") for name, value in named.items()
    )
    return (
        raw if raw.name else averaged if averaged.name else pretrained,
        averaged if averaged.name else raw if raw.name else pretrained,
    )


def read_run_record(checkpoint: Path) -> RunRecord | None:
    """The record of the run that `checkpoint` lies in, or None (raises InputError if a file may not be read)."""
    run = checkpoint.resolve().parent.parent
    try:
        settings = dict(json.loads((run / SETTINGS_NAME).read_text(encoding="utf-8")))
        iteration = iteration_of(checkpoint)
    except PermissionError as error:
        raise cannot_be_read(run / SETTINGS_NAME, error) from None
    except (OSError, ValueError, TypeError):
        return None
    bounds = [each for each in read_log(run)[0] if each["kind"] in _BOUND_SPLITS and each["iteration"] <= iteration]
    # Where both splits were measured at the last iteration, the test split counts.
    bound = max(bounds, key=lambda record: (record["iteration"], record["kind"] == "test"), default={})
    pictures = [path for path in entries(run / IMAGES) if path.match("step-*.png")]
    shown = [path for path in pictures if path.stem <= f"step-{iteration:08d}"]
    return RunRecord(run.name, iteration, settings, bound, max(shown, default=None))
