"""The models of a report: runs' folders and evaluations, as they lie on the disk.

A run's folder holds settings.json, log.jsonl, images/, checkpoints/, and evaluation/, where `vdvae-lr evaluate` writes.
A folder that holds only an evaluation is also accepted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import EVALUATION_NAME, QUALITY_NAME, Evaluation, read_evaluation, read_evaluations
from vdvae_lr.evaluation.quantities import Quantity
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

Floats = npt.NDArray[np.float64]
MOST_MODELS = 4
"""The charts have four colours, dashes and markers that can be told apart."""
EVALUATION_FOLDER = "evaluation"
_EVENTS = "events.out.tfevents."


@dataclass(frozen=True, eq=False)
class Reported:
    """One model of the report: a run, or an evaluation alone."""

    label: str
    """The model's name on the page."""
    folder: Path
    index: int = 0
    """Position on the page. It decides the model's colour, dash and marker."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run, flat as on the command line; empty if there is no run."""
    chosen: frozenset[str] = frozenset()
    """Names of settings that differ from the run's preset; empty if the preset is unknown."""
    records: tuple[Mapping[str, Any], ...] = ()
    """Lines of the log. Each has a `kind` and an `iteration`."""
    checkpoints: tuple[int, ...] = ()
    """Iterations of the complete checkpoints, oldest first."""
    pictures: tuple[Path, ...] = ()
    """Pictures drawn while training, oldest first."""
    evaluation: Evaluation | None = None
    evaluation_pictures: tuple[Path, ...] = ()
    quality: Evaluation | None = None
    """What `vdvae-lr quality` left beside the evaluation; None if it did not measure this model alone."""
    started: datetime | None = None
    """When TensorBoard created its first file (UTC)."""
    last_written: datetime | None = None
    """When the log was last written (UTC)."""
    remarks: tuple[str, ...] = ()
    """Sentences on what is missing, and how to add it."""

    @property
    def is_run(self) -> bool:
        """Whether the folder is a training run, and not only an evaluation."""
        return bool(self.settings)

    @property
    def iteration(self) -> int:
        """The last iteration in the log or among the checkpoints; 0 if neither has one."""
        return max([*(record["iteration"] for record in self.records), *self.checkpoints], default=0)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolution of each latent group, top-down; empty if unknown."""
        if self.evaluation is not None:
            return self.evaluation.resolutions
        try:
            size = self.settings["image_size"]
            encoder = parse_encoder(self.settings["enc_blocks"], size)
            return tuple(stage.resolution for stage in parse_decoder(self.settings["dec_blocks"], size, encoder))
        except (InputError, KeyError, TypeError, AttributeError):
            return ()

    def quantity(self, key: str) -> Quantity | None:
        """The measured quantity of that key; None if it was not measured."""
        return None if self.evaluation is None else self.evaluation.quantity(key)

    def series(self, kind: str, key: str) -> tuple[Floats, Floats]:
        """Iterations and values (N,) of one number in the log's lines of that kind. What is no number is NaN."""
        found = [
            (float(record["iteration"]), as_number(record[key]))
            for record in self.records
            if record["kind"] == kind and key in record
        ]
        iterations, values = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return iterations, values


def as_number(value: object) -> float:
    """A number from a JSON file. NaN for anything else, and for an integer too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def read_reported(words: Sequence[str]) -> list[Reported]:
    """Read what the words `FOLDER` or `NAME=FOLDER` name, each with a label of its own.

    Raises:
        InputError: there are no words, too many, or two for one folder; or a folder holds neither a run nor an
            evaluation, or a damaged one.
    """
    if not words:
        raise InputError("there is no run to report on; give a run's folder, such as runs/first.")
    if len(words) > MOST_MODELS:
        raise InputError(
            f"{len(words)} runs are too many to tell apart in one chart; report on at most {MOST_MODELS} at a time."
        )
    found = [_read(*_label_and_folder(word)) for word in words]
    folders = [each.folder.resolve() for each in found]
    for folder in folders:
        if folders.count(folder) > 1:
            raise InputError(f"{folder} is named twice; name each run once.")
    return _with_unique_labels(found)


def _label_and_folder(word: str) -> tuple[str, Path]:
    """The label, empty if none is given, and the folder."""
    name, equals, path = word.partition("=")
    if not equals or exists(path_of(word)):
        return "", path_of(word)
    if not name or not path:
        raise InputError(f"'{word}' names no run; write RUN, or NAME=RUN.")
    return name, path_of(path)


def _with_unique_labels(found: Sequence[Reported]) -> list[Reported]:
    """Number the models. Equal labels get the parent folder in front and, if still equal, the number behind."""
    labels = [each.label for each in found]
    longer = [
        f"{each.folder.resolve().parent.name}/{each.label}" if labels.count(each.label) > 1 else each.label
        for each in found
    ]
    unique = [
        f"{label} ({number})" if longer.count(label) > 1 else label for number, label in enumerate(longer, start=1)
    ]
    return [
        replace(each, label=label, index=index) for index, (each, label) in enumerate(zip(found, unique, strict=True))
    ]


def _read(label: str, folder: Path) -> Reported:
    if folder.name == EVALUATION_NAME and is_file(folder):
        folder = folder.parent
    if not is_folder(folder):
        raise InputError(
            f"there is no folder {folder}; give a training run, or the folder that `vdvae-lr evaluate` wrote."
        )
    if is_file(folder / SETTINGS_NAME):
        return _read_run(label, folder)
    if is_file(folder / EVALUATION_NAME):
        evaluation, pictures = read_evaluation(folder), _pngs(folder, "*.png")
        return Reported(
            label or evaluation.name,
            folder,
            evaluation=evaluation,
            evaluation_pictures=pictures,
            quality=_read_quality(folder),
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
        quality=_read_quality(evaluation_folder),
        started=_started(folder),
        last_written=_date(folder / LOG_NAME),
    )
    return replace(run, remarks=tuple(_remarks(run, unread)))


def _read_quality(folder: Path) -> Evaluation | None:
    """The quality of a model's pictures; None if there is no such file, or it is of several models."""
    path = folder / QUALITY_NAME
    models = read_evaluations(path) if is_file(path) else {}
    return next(iter(models.values())) if len(models) == 1 else None


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise cannot_be_read(path, error) from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is damaged: it holds no settings; restore it from a copy, or report on another run.")
    return content


def _pngs(folder: Path, pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(path for path in entries(folder) if path.match(pattern) and is_file(path)))


def _started(folder: Path) -> datetime | None:
    """TensorBoard writes the second of creation into its files' names."""
    files = [path.name for path in entries(folder / "tensorboard") if path.name.startswith(_EVENTS)]
    names = [name.removeprefix(_EVENTS).partition(".")[0] for name in files]
    times = [int(name) for name in names if name.isdecimal() and len(name) <= 10]
    return datetime.fromtimestamp(min(times), UTC) if times else None


def _date(path: Path) -> datetime | None:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) if exists(path) else None


def _remarks(run: Reported, unread: int) -> list[str]:
    found = []
    evaluated = run.evaluation.iteration if run.evaluation is not None else None
    if not run.checkpoints:
        found.append("It has no checkpoint, so there are no weights to evaluate yet.")
    elif run.evaluation is None:
        found.append(
            f"It has not been evaluated. Run `vdvae-lr evaluate {run.folder}` to measure its latents, then write the "
            "report again."
        )
    elif evaluated is not None and evaluated < run.checkpoints[-1]:
        found.append(
            f"Its evaluation is of the checkpoint of iteration {evaluated:,}, and there is a newer one. Evaluate it "
            "again to see the newest weights."
        )
    planned = as_number(run.settings.get("iters"))
    if run.iteration < planned:
        found.append(f"It is at iteration {run.iteration:,} of {planned:,.0f}.")
    if unread:
        found.append(f"{unread} {'line' if unread == 1 else 'lines'} of its log could not be read and are left out.")
    return found
