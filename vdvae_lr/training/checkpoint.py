"""Checkpoints: everything that a run needs to go on, written whole or not at all, while training goes on.

checkpoints/step-00001000/
    config.json            the model's settings, so that the folder also serves as weights
    model.safetensors      weights
    ema.safetensors        averaged weights
    optimiser.safetensors  AdamW's averages and count of updates
    state.json             iteration, counters, running sums, images, settings, versions, number of processes
    SHA256SUMS             digests of all other files, as `sha256sum --check` reads them

A checkpoint is written under a hidden name, and renamed when it is complete and on the disk. An old one is hidden
before it is removed. So every `step-…` folder is whole, at whatever moment a process is killed.
"""

import json
import os
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.datasets.inventory import Inventory
from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import DIGESTS_NAME, file_sha256, listed_digests, write_digests
from vdvae_lr.files.paths import UnreadableError
from vdvae_lr.files.run_folder import CHECKPOINTS, EMA_NAME, complete_checkpoints, iteration_of
from vdvae_lr.files.whole_file import remove
from vdvae_lr.hub.weight_folder import CONFIG_NAME, WEIGHTS_NAME, read_weights, write_config, write_weights
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import TrainingStep

_OPTIMISER_NAME = "optimiser.safetensors"
_STATE_NAME = "state.json"
_NEEDED = frozenset({CONFIG_NAME, WEIGHTS_NAME, EMA_NAME, _OPTIMISER_NAME, _STATE_NAME})
_COUNT_NAME = "counters/step"
"""AdamW's count of updates, beside its averages `exp_avg/PARAMETER` and `exp_avg_sq/PARAMETER`."""
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        iteration: iterations done.
        bad_images: images that were replaced since the start, on all processes.
        processes: how many processes did the last iterations.
        images: inventory of the data; empty if an earlier version saved the checkpoint.
        encoder_first: state of Lagging VAE's schedule, in a run that has one.
    """

    iteration: int = 0
    bad_images: int = 0
    processes: int = 1
    images: Inventory = field(default_factory=dict)
    encoder_first: dict[str, Any] | None = None


class Snapshot:
    """A run's state at one moment, copied to the host: training goes on while it is written.

    Taking the next state uses the same memory again.
    """

    def __init__(self, step: TrainingStep, settings: Settings, images: Inventory) -> None:
        self._step = step
        self._settings = settings
        self._images = images
        self._buffers: dict[str, Tensor] = {}
        self._state: dict[str, Any] = {}

    def take(self, iteration: int, bad_images: int, encoder_first: Mapping[str, Any] | None = None) -> None:
        """Copy the state after `iteration` iterations; waits for the device, and for nothing else.

        Other arguments are as in `Position`.
        """
        step, optimiser = self._step, self._step.optimiser
        for name, buffer in optimiser.flat_state().items():
            if name not in self._buffers:
                pinned = buffer.is_cuda  # a copy into page-locked memory runs at the link's full speed
                self._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=pinned)
            self._buffers[name].copy_(buffer, non_blocking=True)
        if step.world.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        self._update_count = optimiser.update_count()
        self._state = {
            "iteration": iteration,
            "processes": step.world.size,
            "loop": {"bad_images": bad_images} | ({"encoder_first": encoder_first} if encoder_first else {}),
            "images": dict(self._images),
            "scaler": optimiser.scaler.state_dict(),
            "skipped": float(optimiser.skipped),
            "consecutive_skips": float(optimiser.consecutive_skips),
            "gradient_norm": float(optimiser.gradient_norm),
            "sums": step.sums.tolist(),
            "finite_steps": float(step.finite_steps),
            "settings": self._settings.flat(),
            "versions": {"torch": torch.__version__},
        }

    @property
    def iteration(self) -> int:
        """Iterations done when the state was taken."""
        return int(self._state["iteration"])

    def write(self, folder: Path) -> None:
        """Write every file into `folder`, and wait until they are on the disk (raises OSError, InputError)."""
        named = {name: self._step.optimiser.weights.named(buffer) for name, buffer in self._buffers.items()}
        write_config(folder, self._step.model.config, self._settings.data.dataset)
        write_weights(folder / WEIGHTS_NAME, named.pop("state"))
        write_weights(folder / EMA_NAME, named.pop("average"))
        moments = {f"{kind}/{name}": tensor for kind, group in named.items() for name, tensor in group.items()}
        write_weights(folder / _OPTIMISER_NAME, moments | {_COUNT_NAME: self._update_count})
        (folder / _STATE_NAME).write_text(json.dumps(self._state, indent=2) + "\n", encoding="utf-8")
        write_digests(folder, [path.name for path in folder.iterdir()])
        for path in [*folder.iterdir(), folder]:
            flush(path)


def flush(path: Path) -> None:
    """Wait until the content of a file or folder is on the disk: a rename must not overtake it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        run_folder: the run's folder.
        keep: how many of the newest checkpoints stay.
        snapshot_every: a checkpoint at a multiple of so many iterations stays for good; 0: none does.
    """

    def __init__(self, run_folder: Path, keep: int, snapshot_every: int) -> None:
        self.folder = run_folder / CHECKPOINTS
        self._keep = keep
        self._snapshot_every = snapshot_every

    def write(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, then remove old ones. Raises InputError if the disk refuses; earlier ones then stay."""
        final = self.folder / f"step-{snapshot.iteration:08d}"
        temporary = final.with_name(f".{final.name}.part")
        try:
            remove(temporary)
            temporary.mkdir(parents=True)
            snapshot.write(temporary)
            if os.path.lexists(final):  # a damaged checkpoint, a file, or a link that leads nowhere
                self._remove(final)
            temporary.replace(final)
            flush(self.folder)
        except OSError as error:
            raise InputError(
                f"checkpoint {final} could not be written ({error.strerror or error}), earlier ones are untouched; "
                "free space, or move the run's folder to another --save_dir, then run the same command again to go on."
            ) from None
        finally:
            with suppress(OSError):
                remove(temporary)
        with suppress(OSError):  # the next checkpoint tries again
            self._prune(final)

    def _remove(self, path: Path) -> None:
        hidden = path.with_name(f".{path.name}.old.part")
        remove(hidden)
        path.replace(hidden)
        with suppress(OSError):  # the next start of the run tries again
            remove(hidden)

    def _prune(self, newest: Path) -> None:
        """Keep the last ones up to `newest`. A later one is damaged: the run went back to an earlier one."""
        steps = [path for path in complete_checkpoints(self.folder) if path.name <= newest.name]
        for path in steps[: -self._keep]:
            if not (self._snapshot_every and iteration_of(path) % self._snapshot_every == 0):
                self._remove(path)

    def newest_sound(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest checkpoint whose files match their digests, its state, and a sentence for each damaged later one.

        Raises:
            InputError: all checkpoints are damaged, or one may not be read. That one may be sound, and to train from an
                earlier one would lose work.
        """
        complaints: list[str] = []
        for path in reversed(complete_checkpoints(self.folder)):
            try:
                return path, read_checked_state(path), complaints
            except UnreadableError:
                raise
            except InputError as error:
                complaints.append(str(error))
        if complaints:
            raise InputError(f"{complaints[0]} No earlier one is sound either; start anew with --fresh.")
        return None


class BackgroundSaver:
    """Writes checkpoints while training goes on, one at a time; the next `check` raises the error of a failed write.

    A failure of training does not lose a checkpoint: at its end the interpreter waits for the thread. The loss of
    another process does, because it ends this process at once.
    """

    def __init__(self, checkpoints: CheckpointFolder, snapshot: Snapshot) -> None:
        self._checkpoints = checkpoints
        self._snapshot = snapshot
        self._writer = ThreadPoolExecutor(1, "checkpoint writer")
        self._writing: Future[None] | None = None

    def save(self, iteration: int, bad_images: int, encoder_first: Mapping[str, Any] | None = None) -> None:
        """Copy the state and begin to write it; first waits for the checkpoint before (raises InputError for that).

        Arguments are those of `Snapshot.take`.
        """
        self.wait()
        self._snapshot.take(iteration, bad_images, encoder_first)
        self._writing = self._writer.submit(self._checkpoints.write, self._snapshot)

    def check(self) -> None:
        """Raise the error of the last write, if it has ended with one."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written (raises the error of a failed write)."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Accept no more. After a failure, wait only briefly: the other processes have still to hear of it."""
        if self._writing is not None:
            futures.wait([self._writing], timeout=_PATIENCE_S)
        self._writer.shutdown(wait=False)


def read_checked_state(checkpoint: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint, after a check of every file's digest.

    Raises InputError if a file is missing, cut or changed, and UnreadableError if one may not be read.
    """
    try:
        digests = listed_digests(checkpoint)
    except UnreadableError:
        raise
    except InputError:
        digests = {}
    names = sorted(_NEEDED | digests.keys())
    wrong = (name for name in names if _digest_if_readable(checkpoint / name) != digests.get(name, ""))
    name = next(wrong, None) if digests else DIGESTS_NAME
    if name is not None:
        raise InputError(f"checkpoint {checkpoint} is damaged: {name} is missing, cut or changed.")
    state: dict[str, Any] = json.loads((checkpoint / _STATE_NAME).read_text(encoding="utf-8"))
    return state


def _digest_if_readable(path: Path) -> str | None:
    try:
        return file_sha256(path, shown=False)
    except InputError as error:
        if isinstance(error.__cause__, PermissionError):  # the file may be sound
            raise
        return None


def restore(step: TrainingStep, checkpoint: Path, state: Mapping[str, Any]) -> Position:
    """Put a run back to where `checkpoint` left it, bit for bit, and return where that is."""
    optimiser = step.optimiser
    weights = optimiser.weights
    weights.load(weights.state, read_weights(checkpoint / WEIGHTS_NAME))
    weights.load(optimiser.ema.average, read_weights(checkpoint / EMA_NAME))
    moments: dict[str, dict[str, Tensor]] = {}
    tensors = read_weights(checkpoint / _OPTIMISER_NAME)
    update_count = tensors.pop(_COUNT_NAME)
    for name, tensor in tensors.items():
        kind, _, parameter = name.partition("/")
        moments.setdefault(kind, {})[parameter] = tensor
    optimiser.load_moments(moments, update_count)
    optimiser.scaler.load_state_dict(state["scaler"])
    optimiser.skipped.fill_(state["skipped"])
    optimiser.consecutive_skips.fill_(state["consecutive_skips"])
    optimiser.gradient_norm.fill_(state["gradient_norm"])
    if step.world.is_main:  # these are the sums of all processes
        share = step.world.size / state["processes"]  # from here on each process adds its own share
        step.sums.copy_(torch.tensor(state["sums"], dtype=torch.float64) * share)
        step.finite_steps.fill_(state["finite_steps"] * share)
    loop, images = state["loop"], state.get("images", {})
    bad_images = int(loop.get("bad_images", 0))
    return Position(state["iteration"], bad_images, state["processes"], images, loop.get("encoder_first"))
