"""What a run writes about itself: JSON lines, curves of trackers, and one line for a person (docs/logged_numbers.md).

The step accumulates on the device. Only when a line is due, this module reads the numbers, of all processes.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from vdvae_lr.errors import InputError
from vdvae_lr.files.run_folder import LOG_NAME, read_log
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.training.console import Speedometer
from vdvae_lr.training.step import TERM_NAMES, TrainingStep
from vdvae_lr.training.trackers import Trackers

LoggedValue = float | int | Sequence[float | None] | None
Record = Mapping[str, LoggedValue]
"""Numbers of one line of the log, by names with units."""


def read_line(step: TrainingStep, alpha: float, bad_images: int) -> dict[str, float]:
    """The record of a line of kind train: means over the steps since the last line. Starts the running sums anew.

    All processes must call this. It is the one place where the numbers of a step leave the device.
    """
    step.gather_sums()
    *terms, steps = [*step.sums.tolist(), float(step.finite_steps)]
    step.sums.zero_()
    step.finite_steps.zero_()
    means = [term / steps if steps else math.nan for term in terms]
    return dict(zip(TERM_NAMES, means, strict=True)) | {
        "alpha": alpha,
        "beta": step.beta,
        "gradient_norm": float(step.optimiser.gradient_norm),  # of the last step, before clipping
        "skipped_updates": int(step.optimiser.skipped),
        "bad_images": bad_images,
    }


def console_line(iteration: int, record: Mapping[str, float], iterations: int, speed: Speedometer) -> str:
    """The record of `read_line` for a person; numbers in nats/dim."""
    width = len(str(iterations))
    elbo, rate, distortion, reconstruction = (record[name] for name in TERM_NAMES)
    parts = [
        f"step {iteration:>{width}}/{iterations}",
        f"left {speed.time_left(iteration)}",
        f"{speed.images_per_second():.1f} images/s",
        f"-ELBO {elbo:.4f} = rate {rate:.4f} + distortion {distortion:.4f}",
    ]
    if record["alpha"] > 0 or reconstruction != 0:
        parts.append(f"LR {reconstruction:.4f} × α {record['alpha']:.3f}")
    parts += [f"grad {record['gradient_norm']:.2f}", f"skipped {record['skipped_updates']}"]
    if record["bad_images"]:
        parts.append(f"bad images {record['bad_images']}")
    return " · ".join(parts)


class RunLog:
    """Writes a run's records on the main process.

    Args:
        folder: the run's folder; None: write nothing, as the other processes do.
        resume_at: iteration at which the run goes on. Later records are dropped, since the run does those steps again.
        trackers: where the same numbers are shown as curves; None: nowhere.

    Raises:
        InputError: the disk refused; every method may raise this.
    """

    def __init__(self, folder: Path | None, resume_at: int, trackers: Trackers | None = None) -> None:
        self._trackers = trackers
        self._file: TextIO | None = None
        self._written: set[tuple[str, int]] = set()
        self._first: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._last: dict[str, Mapping[str, object]] = {}
        if folder is None:
            return
        self._path = folder / LOG_NAME
        with self._disk():
            kept = [record for record in read_log(folder)[0] if record["iteration"] <= resume_at]
            write_whole(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
            for record in kept:
                kind, iteration = record.pop("kind"), record.pop("iteration")
                self._written.add((kind, iteration))
                self._first.setdefault(kind, (iteration, record))
                self._last[kind] = record
            self._file = self._path.open("a", buffering=1, encoding="utf-8")

    def has(self, kind: str, iteration: int) -> bool:
        """Whether the log had such a record when it was opened."""
        return (kind, iteration) in self._written

    def first(self, kind: str) -> tuple[int, Mapping[str, Any]] | None:
        """Iteration and numbers of the first record of that kind, on the main process; None if there is none yet."""
        return self._first.get(kind)

    def write(self, kind: str, iteration: int, record: Record, curves: Mapping[str, float] | None = None) -> None:
        """Write one JSON line, and show a curve `kind/name` of each of its numbers.

        `curves` are further numbers for the trackers alone, by the whole names of their curves.
        """
        if self._file is None:
            return
        finite = {name: _finite(value) for name, value in record.items()}
        self._first.setdefault(kind, (iteration, finite))
        named: dict[str, LoggedValue] = {f"{kind}/{name}": value for name, value in finite.items()}
        with self._disk():
            self._file.write(json.dumps({"kind": kind, "iteration": iteration} | finite) + "\n")
        if self._trackers is not None:
            shown = (named | dict(curves or {})).items()
            numbers = {name: value for name, value in shown if isinstance(value, int | float) and math.isfinite(value)}
            self._trackers.write(kind, iteration, numbers)

    def picture(self, iteration: int, path: Path) -> None:
        """Show a picture, which is a file already, in the trackers."""
        if self._trackers is not None:
            self._trackers.picture(iteration, path)

    def note(self, kind: str, iteration: int, content: Mapping[str, object]) -> None:
        """Write one JSON line that is no measurement, unless the last line of its kind says the same."""
        if self._file is None or self._last.get(kind) == content:
            return
        with self._disk():
            self._file.write(json.dumps({"kind": kind, "iteration": iteration, **content}) + "\n")

    def flush(self) -> None:
        """Wait until what was written is on the disk: a checkpoint must not be newer than the log."""
        if self._file is not None:
            with self._disk():
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close. An error of the disk is ignored here: the writes before raised it."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"log {self._path} cannot be written ({error.strerror or error}); free space, or move the run's folder "
                "to another --save_dir, then run the same command again to go on."
            ) from None


def _finite(value: LoggedValue) -> LoggedValue:
    """The value with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, Sequence):
        return [each if each is not None and math.isfinite(each) else None for each in value]
    return value if value is None or math.isfinite(value) else None
