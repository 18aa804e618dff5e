"""Checkpoints: everything a run needs to go on, written whole or not at all.

    checkpoints/step-00001000/
        config.json            the model's settings, so that the folder also serves as weights
        model.safetensors      weights
        ema.safetensors        averaged weights
        optimiser.safetensors  AdamW's averages and step count
        state.json             iteration, counters, running sums, settings, versions, and the sha256 of every other file

A checkpoint is written under a hidden name and renamed when it is complete and on the disk.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.hub.repository import CHECKPOINTS, EMA_NAME
from vdvae_lr.hub.weight_folder import WEIGHTS_NAME, read_weights, write_config, write_weights
from vdvae_lr.model.vae import VAEConfig
from vdvae_lr.training.step import TrainingStep

OPTIMISER_NAME = "optimiser.safetensors"
STATE_NAME = "state.json"


@dataclass(frozen=True)
class Position:
    """Where a run stands: iterations done, and what its log must remember."""

    iteration: int
    loop: Mapping[str, Any]


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        run_folder: the run's folder.
        keep: how many of the newest stay.
        snapshot_every: iterations whose multiples stay for good; 0: none.
    """

    def __init__(self, run_folder: Path, keep: int, snapshot_every: int) -> None:
        self.folder = run_folder / CHECKPOINTS
        self._keep = keep
        self._snapshot_every = snapshot_every

    def save(self, training: TrainingStep, position: Position, settings: Mapping[str, Any], dataset: str) -> Path:
        """Write the state after `position.iteration` iterations, then let go of old checkpoints.

        Raises:
            InputError: the disk refused; what was there before is untouched.
        """
        final = self.folder / f"step-{position.iteration:08d}"
        temporary = self.folder / f".{final.name}.part"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(temporary, training, position, settings, dataset)
            if final.exists():
                shutil.rmtree(final)
            temporary.replace(final)
            _flush(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise InputError(
                f"checkpoint {final} could not be written ({error.strerror or error}), earlier ones are untouched; "
                "free space or choose another --save_dir, then run the same command again to go on."
            ) from None
        self._prune(final)
        return final

    def _prune(self, newest: Path) -> None:
        """Keep the last ones up to `newest`; a later one is a damaged one that the run went back behind."""
        steps = [path for path in self.existing() if path.name <= newest.name]
        for path in steps[: -self._keep]:
            iteration = int(path.name.removeprefix("step-"))
            if not (self._snapshot_every and iteration % self._snapshot_every == 0):
                shutil.rmtree(path)

    def existing(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def newest_sound(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest checkpoint whose files match their digests, its state, and a sentence for each damaged later one.

        Raises:
            InputError: there are checkpoints, and all of them are damaged.
        """
        complaints: list[str] = []
        for path in reversed(self.existing()):
            try:
                return path, read_checked_state(path), complaints
            except InputError as error:
                complaints.append(str(error))
        if complaints:
            raise InputError(f"{complaints[0]} No earlier one is sound either; start anew with --fresh.")
        return None


def read_checked_state(checkpoint: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint after checking every file's digest.

    Raises:
        InputError: a file is missing, cut or changed.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE_NAME).read_text())
        digests = dict(state["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"checkpoint {checkpoint} is damaged: its {STATE_NAME} cannot be read.") from None
    for name, digest in digests.items():
        path = checkpoint / name
        if not path.is_file() or file_digest(path) != digest:
            raise InputError(f"checkpoint {checkpoint} is damaged: {name} is missing, cut or changed.")
    return state


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restore(training: TrainingStep, checkpoint: Path, state: Mapping[str, Any]) -> Position:
    """Put a run back to where `checkpoint` left it, bit for bit, and say where that is."""
    optimiser = training.optimiser
    weights = optimiser.weights
    weights.load(weights.values.data, read_weights(checkpoint / WEIGHTS_NAME))
    weights.load(optimiser.ema.average, read_weights(checkpoint / EMA_NAME))
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_weights(checkpoint / OPTIMISER_NAME).items():
        kind, _, parameter = name.partition("/")
        grouped.setdefault(kind, {})[parameter] = tensor
    optimiser.load_state_by_name(grouped)
    optimiser.scaler.load_state_dict(state["scaler"])
    optimiser.skipped.fill_(state["skipped"])
    optimiser.consecutive_skips.fill_(state["consecutive_skips"])
    optimiser.gradient_norm.fill_(state["gradient_norm"])
    if training.world.is_main:  # they are all processes' sums
        training.sums.copy_(torch.tensor(state["sums"], dtype=torch.float64))
        training.finite_steps.fill_(state["finite_steps"])
    return Position(state["iteration"], state["loop"])


def _write(folder: Path, training: TrainingStep, position: Position, settings: Mapping[str, Any], dataset: str) -> None:
    optimiser = training.optimiser
    weights = optimiser.weights
    config: VAEConfig = training.model.config
    write_config(folder, config, dataset)
    write_weights(folder / WEIGHTS_NAME, weights.named(weights.values.data))
    write_weights(folder / EMA_NAME, weights.named(optimiser.ema.average))
    moments = {f"{kind}/{name}": t for kind, group in optimiser.state_by_name().items() for name, t in group.items()}
    write_weights(folder / OPTIMISER_NAME, moments)
    state = {
        "iteration": position.iteration,
        "loop": dict(position.loop),
        "scaler": optimiser.scaler.state_dict(),
        "skipped": float(optimiser.skipped),
        "consecutive_skips": float(optimiser.consecutive_skips),
        "gradient_norm": float(optimiser.gradient_norm),
        "sums": training.sums.tolist(),
        "finite_steps": float(training.finite_steps),
        "settings": dict(settings),
        "versions": {"torch": torch.__version__},
        "sha256": {path.name: file_digest(path) for path in sorted(folder.iterdir())},
    }
    (folder / STATE_NAME).write_text(json.dumps(state, indent=2) + "\n")
    for path in folder.iterdir():
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Wait until a file's, or a folder's, content is on the disk: a rename must not overtake it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
