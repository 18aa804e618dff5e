"""What a run says about itself: JSON lines, TensorBoard, and one line a person can read.

The step accumulates on the device; this module asks for the numbers, and the other processes for theirs, only when a
line is due.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from vdvae_lr.errors import InputError
from vdvae_lr.files.run_folder import LOG_NAME, read_log
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.training.speed import Speedometer
from vdvae_lr.training.step import TERM_NAMES, TrainingStep

LoggedValue = float | int | list[float] | None
Record = Mapping[str, LoggedValue]
"""Numbers of one line of the log, by names with units."""


@dataclass(frozen=True)
class TrainingLine:
    """Means over the steps since the last line; nats/dim, but `latent_reconstruction` in its form's unit."""

    iteration: int
    negative_elbo: float
    rate: float
    distortion: float
    latent_reconstruction: float
    alpha: float
    gradient_norm: float  # of the last step, before clipping
    skipped: int  # updates since the start of the run
    bad_images: int  # replaced images since the start of the run

    def as_record(self) -> dict[str, float | int]:
        """Names with units, as the log has them."""
        return {
            "iteration": self.iteration,
            "negative_elbo_nats_per_dim": self.negative_elbo,
            "rate_nats_per_dim": self.rate,
            "distortion_nats_per_dim": self.distortion,
            "latent_reconstruction": self.latent_reconstruction,
            "alpha": self.alpha,
            "gradient_norm": self.gradient_norm,
            "skipped_updates": self.skipped,
            "bad_images": self.bad_images,
        }


def read_line(training: TrainingStep, iteration: int, alpha: float, bad_images: int) -> TrainingLine:
    """Meet the other processes, read the running sums, and start them anew; the one place a step's numbers leave the
    device.
    """
    training.gather_sums()
    *terms, steps = [*training.sums.tolist(), float(training.finite_steps)]
    training.sums.zero_()
    training.finite_steps.zero_()
    means = [term / steps if steps else float("nan") for term in terms]
    named = dict(zip(TERM_NAMES, means, strict=True))
    optimiser = training.optimiser
    return TrainingLine(
        iteration=iteration,
        alpha=alpha,
        gradient_norm=float(optimiser.gradient_norm),
        skipped=int(optimiser.skipped),
        bad_images=bad_images,
        **named,
    )


class RunLog:
    """Writes a run's records on the main process; others get one that writes nothing.

    Args:
        folder: of the run, or None to write nothing.
        resume_at: records after this iteration are dropped, since the run does those iterations again.

    Raises:
        InputError: here and in every method, the disk refused.
    """

    def __init__(self, folder: Path | None, resume_at: int) -> None:
        self._file = None
        self._board = None
        self._written: set[tuple[str, int]] = set()
        self._last: dict[str, Mapping[str, object]] = {}
        if folder is None:
            return
        self._path = folder / LOG_NAME
        with self._disk():
            kept = [record for record in read_log(folder)[0] if record["iteration"] <= resume_at]
            write_whole(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
            self._written = {(record["kind"], record["iteration"]) for record in kept}
            self._last = {record["kind"]: _content(record) for record in kept}
            self._file = self._path.open("a", buffering=1, encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1 if resume_at else None)

    def has(self, kind: str, iteration: int) -> bool:
        """Whether the log had such a record when it was opened."""
        return (kind, iteration) in self._written

    def write(self, kind: str, iteration: int, record: Record, curves: Mapping[str, float] | None = None) -> None:
        """One JSON line, and each number of it as a TensorBoard curve under `kind/`; `curves` for TensorBoard alone, by
        their whole names.
        """
        if self._file is None or self._board is None:
            return
        finite = {name: _finite(value) for name, value in record.items()}
        named = {f"{kind}/{name}": value for name, value in finite.items() if name != "iteration"}
        with self._disk():
            self._file.write(json.dumps({"kind": kind, "iteration": iteration} | finite) + "\n")
            for name, value in {**named, **(curves or {})}.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(name, value, iteration)

    def note(self, kind: str, iteration: int, content: Mapping[str, object]) -> None:
        """One JSON line that is no measurement, unless the last of its kind says the same."""
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
        """Flush and close; what the disk refuses now, it refused before."""
        if self._file is not None and self._board is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._board.close()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"log {self._path} cannot be written ({error.strerror or error}); free space, or move the run's folder "
                "to another --save_dir, then run the same command again to go on."
            ) from None


def _finite(value: LoggedValue) -> LoggedValue | list[float | None]:
    """JSON has no NaN: such a number is written as null."""
    if isinstance(value, list):
        return [each if math.isfinite(each) else None for each in value]
    return value if value is None or math.isfinite(value) else None


def _content(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("kind", "iteration")}


def console_line(line: TrainingLine, iterations: int, speed: Speedometer) -> str:
    """One line for a person; numbers in nats/dim."""
    width = len(str(iterations))
    parts = [
        f"step {line.iteration:>{width}}/{iterations}",
        f"left {speed.time_left(line.iteration)}",
        f"{speed.images_per_second():.1f} images/s",
        f"-ELBO {line.negative_elbo:.4f} = rate {line.rate:.4f} + distortion {line.distortion:.4f}",
    ]
    if line.alpha > 0 or line.latent_reconstruction != 0:
        parts.append(f"LR {line.latent_reconstruction:.4f} × α {line.alpha:.3f}")
    parts.append(f"grad {line.gradient_norm:.2f}")
    parts.append(f"skipped {line.skipped}")
    if line.bad_images:
        parts.append(f"bad images {line.bad_images}")
    return " · ".join(parts)
