"""What a report is made of: runs' folders, and evaluations, read and not computed.

RUN/settings.json, log.jsonl, images/, checkpoints/, and RUN/evaluation/ as `vdvae-lr evaluate` leaves it. A folder with
nothing but an evaluation is taken as well.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import EVALUATION_NAME, Evaluation, read_evaluation
from vdvae_lr.files.paths import cannot_be_read, entries, exists, is_file, is_folder, path_of
from vdvae_lr.files.run_folder import (
    CHECKPOINTS,
    IMAGES,
    LOG_NAME,
    SETTINGS_NAME,
    complete_checkpoints,
    iteration_of,
    read_log,
)
from vdvae_lr.model.vdvae.layout import parse_decoder, parse_encoder
from vdvae_lr.report.charts import MOST_RUNS, Floats

EVALUATION_FOLDER = "evaluation"
_EVENTS = "events.out.tfevents."


@dataclass(frozen=True)
class Reported:
    """One run, or one evaluation, as it lies on the disk."""

    label: str
    """What the report calls it."""
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Flat, as on the command line; empty: no run is known."""
    chosen: frozenset[str] = frozenset()
    """Names of the settings in which the run departs from its preset, where that is known."""
    records: tuple[Mapping[str, Any], ...] = ()
    """Lines of its log: each has a `kind` and an `iteration`."""
    checkpoints: tuple[int, ...] = ()
    """Iterations that can be gone back to, oldest first."""
    pictures: tuple[Path, ...] = ()
    """What it drew while training, oldest first."""
    evaluation: Evaluation | None = None
    evaluation_pictures: tuple[Path, ...] = ()
    started: datetime | None = None
    """When its first process began to write curves (UTC)."""
    last_written: datetime | None = None
    """The date of its log (UTC)."""
    remarks: tuple[str, ...] = ()
    """Sentences on what is missing, and how to add it."""

    @property
    def is_run(self) -> bool:
        """Whether a training run is known, and not just an evaluation."""
        return bool(self.settings)

    @property
    def iteration(self) -> int:
        """How far it has come: the last one in its log or among its checkpoints; 0: nothing says so."""
        return max([*(record["iteration"] for record in self.records), *self.checkpoints], default=0)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Of every latent group, top-down; empty where nothing says so."""
        if self.evaluation is not None:
            return self.evaluation.resolutions
        try:
            size = self.settings["image_size"]
            encoder = parse_encoder(self.settings["enc_blocks"], size)
            return tuple(stage.resolution for stage in parse_decoder(self.settings["dec_blocks"], size, encoder))
        except (InputError, KeyError, TypeError, AttributeError):
            return ()

    def series(self, kind: str, key: str) -> tuple[Floats, Floats]:
        """Iterations and values (N,) of one number of the log's lines of a kind; NaN where it is none."""
        found = [
            (float(record["iteration"]), as_number(record[key]))
            for record in self.records
            if record["kind"] == kind and key in record
        ]
        points = np.array(found, dtype=np.float64).reshape(-1, 2)
        return points[:, 0], points[:, 1]


def as_number(value: object) -> float:
    """A number of a JSON file; NaN for what is none, and for a whole one that is too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def read_reported(words: Sequence[str]) -> list[Reported]:
    """What `FOLDER` or `NAME=FOLDER` words name, each under a label of its own.

    Raises:
        InputError: none, too many, one twice, one that is neither a run nor an evaluation, or a damaged one.
    """
    if not words:
        raise InputError("there is no run to report on; give a run's folder, such as runs/first.")
    if len(words) > MOST_RUNS:
        raise InputError(
            f"{len(words)} runs are too many to tell apart in one chart; report on at most {MOST_RUNS} at a time."
        )
    found = [_read(*_named(word)) for word in words]
    folders = [each.folder.resolve() for each in found]
    for folder in folders:
        if folders.count(folder) > 1:
            raise InputError(f"{folder} is named twice; name each run once.")
    return _told_apart(found)


def _named(word: str) -> tuple[str, Path]:
    """A label, if one is given, and the folder."""
    name, equals, path = word.partition("=")
    if not equals or exists(path_of(word)):
        return "", path_of(word)
    if not name or not path:
        raise InputError(f"'{word}' names no run; write RUN, or NAME=RUN.")
    return name, path_of(path)


def _told_apart(found: Sequence[Reported]) -> list[Reported]:
    """The same with longer labels where two have one in common."""
    labels = [each.label for each in found]
    longer = [f"{each.folder.resolve().parent.name}/{each.label}" for each in found]
    named = [
        replace(each, label=long if labels.count(label) > 1 else label)
        for each, label, long in zip(found, labels, longer, strict=True)
    ]
    again = [each.label for each in named]
    return [
        replace(each, label=f"{each.label} ({number})") if again.count(each.label) > 1 else each
        for number, each in enumerate(named, start=1)
    ]


def _read(label: str, folder: Path) -> Reported:
    if folder.name == EVALUATION_NAME and is_file(folder):
        folder = folder.parent
    if not is_folder(folder):
        raise InputError(
            f"there is no folder {folder}; give a training run, or what `vdvae-lr evaluate` left of other weights."
        )
    if is_file(folder / SETTINGS_NAME):
        return _read_run(label, folder)
    if is_file(folder / EVALUATION_NAME):
        evaluation = read_evaluation(folder)
        return Reported(
            label or evaluation.name, folder, evaluation=evaluation, evaluation_pictures=_pngs(folder, "*.png")
        )
    raise InputError(
        f"{folder} is neither a run nor an evaluation: it has no {SETTINGS_NAME} and no {EVALUATION_NAME}."
    )


def _read_run(label: str, folder: Path) -> Reported:
    settings = _read_settings(folder / SETTINGS_NAME)
    records, unread = read_log(folder)
    checkpoints = complete_checkpoints(folder / CHECKPOINTS)
    evaluation_folder = folder / EVALUATION_FOLDER
    evaluated = is_file(evaluation_folder / EVALUATION_NAME)
    if not (records or checkpoints or evaluated):
        raise InputError(f"run {folder} has nothing to report yet: no log line, no checkpoint; let it train first.")
    run = Reported(
        label=label or folder.resolve().name,
        folder=folder,
        settings=settings,
        records=tuple(records),
        checkpoints=tuple(map(iteration_of, checkpoints)),
        pictures=_pngs(folder / IMAGES, "step-*.png"),
        evaluation=read_evaluation(evaluation_folder) if evaluated else None,
        evaluation_pictures=_pngs(evaluation_folder, "*.png") if evaluated else (),
        started=_started(folder),
        last_written=_date(folder / LOG_NAME),
    )
    return replace(run, remarks=_remarks(run, unread))


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise cannot_be_read(path, error) from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is damaged: it holds no settings; put it back from a copy, or report on another run.")
    return content


def _pngs(folder: Path, pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(path for path in entries(folder) if path.match(pattern) and is_file(path)))


def _started(folder: Path) -> datetime | None:
    """From the names that TensorBoard gives its files."""
    files = [path.name for path in entries(folder / "tensorboard") if path.name.startswith(_EVENTS)]
    names = [name.removeprefix(_EVENTS).partition(".")[0] for name in files]
    times = [int(name) for name in names if name.isdecimal() and len(name) <= 10]
    return datetime.fromtimestamp(min(times), UTC) if times else None


def _date(path: Path) -> datetime | None:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) if exists(path) else None


def _remarks(run: Reported, unread: int) -> tuple[str, ...]:
    found = []
    if not run.checkpoints:
        found.append("It has no checkpoint, so there are no weights of it to evaluate yet.")
    elif run.evaluation is None:
        found.append(
            f"It has not been evaluated: `vdvae-lr evaluate {run.folder}` measures what its latents do; then write the "
            "report again."
        )
    elif _is_stale(run):
        found.append(
            f"Its evaluation is of the checkpoint of iteration {run.evaluation.iteration:,}, and there is a newer one: "
            "evaluate it again to see the weights as they are now."
        )
    planned = as_number(run.settings.get("iters"))
    if run.iteration < planned:
        found.append(f"It stands at iteration {run.iteration:,} of {planned:,.0f}.")
    if unread:
        found.append(f"{unread} {'line' if unread == 1 else 'lines'} of its log could not be read and are left out.")
    return tuple(found)


def _is_stale(run: Reported) -> bool:
    evaluated = run.evaluation.iteration if run.evaluation is not None else None
    return evaluated is not None and evaluated < run.checkpoints[-1]
