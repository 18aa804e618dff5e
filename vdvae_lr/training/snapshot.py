"""A run's state at one moment, copied to the host: training goes on while it is written.

config.json            the model's settings, so that the folder also serves as weights
model.safetensors      weights
ema.safetensors        averaged weights
optimiser.safetensors  AdamW's averages and step count
state.json             iteration, counters, running sums, images, settings, versions, number of processes
SHA256SUMS             of every other file, as `sha256sum --check` reads it
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.datasets.inventory import Inventory
from vdvae_lr.files.digests import write_digests
from vdvae_lr.files.run_folder import EMA_NAME
from vdvae_lr.hub.weight_folder import WEIGHTS_NAME, write_config, write_weights
from vdvae_lr.training.step import TrainingStep

OPTIMISER_NAME = "optimiser.safetensors"
STATE_NAME = "state.json"
COUNT_NAME = "counters/step"
"""AdamW's count of updates, among its averages `exp_avg/PARAMETER` and `exp_avg_sq/PARAMETER`."""


@dataclass(frozen=True)
class Position:
    """Where a run stands: iterations done, by how many processes, what its log must remember, and on which images.

    `images` is the inventory of its data; empty where an earlier version saved it.
    """

    iteration: int
    loop: Mapping[str, Any]
    processes: int = 1
    images: Inventory = field(default_factory=dict)


class Snapshot:
    """Host buffers that hold one state at a time; taking the next one uses them again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._state: dict[str, Any] = {}

    def take(self, training: TrainingStep, position: Position, settings: Mapping[str, Any], dataset: str) -> None:
        """Copy the state; waits for the device, and for nothing else."""
        optimiser = training.optimiser
        self._training = training
        self._dataset = dataset
        for name, buffer in optimiser.flat_state().items():
            self._keep(name, buffer)
        if training.world.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        self._update_count = optimiser.update_count()
        self._state = {
            "iteration": position.iteration,
            "processes": position.processes,
            "loop": dict(position.loop),
            "images": dict(position.images),
            "scaler": optimiser.scaler.state_dict(),
            "skipped": float(optimiser.skipped),
            "consecutive_skips": float(optimiser.consecutive_skips),
            "gradient_norm": float(optimiser.gradient_norm),
            "sums": training.sums.tolist(),
            "finite_steps": float(training.finite_steps),
            "settings": dict(settings),
            "versions": {"torch": torch.__version__},
        }

    def _keep(self, name: str, buffer: Tensor) -> None:
        if name not in self._buffers:
            pinned = buffer.is_cuda  # a copy into page-locked memory runs at the link's full speed
            self._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=pinned)
        self._buffers[name].copy_(buffer, non_blocking=True)

    @property
    def iteration(self) -> int:
        """Iterations done at the moment that was kept."""
        return int(self._state["iteration"])

    def write(self, folder: Path) -> None:
        """Write every file into `folder`, and wait until they are on the disk (raises OSError, InputError)."""
        named = {name: self._training.optimiser.weights.named(buffer) for name, buffer in self._buffers.items()}
        write_config(folder, self._training.model.config, self._dataset)
        write_weights(folder / WEIGHTS_NAME, named.pop("values"))
        write_weights(folder / EMA_NAME, named.pop("average"))
        moments = {f"{kind}/{name}": tensor for kind, group in named.items() for name, tensor in group.items()}
        write_weights(folder / OPTIMISER_NAME, moments | {COUNT_NAME: self._update_count})
        (folder / STATE_NAME).write_text(json.dumps(self._state, indent=2) + "\n", encoding="utf-8")
        write_digests(folder, [path.name for path in folder.iterdir()])
        for path in [*folder.iterdir(), folder]:
            flush(path)


def flush(path: Path) -> None:
    """Wait until a file's, or a folder's, content is on the disk: a rename must not overtake it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
