"""Checkpoints: everything a run needs to go on, written whole or not at all, and beside training.

    checkpoints/step-00001000/    the files of snapshot.py

A checkpoint is written under a hidden name and renamed when it is complete and on the disk; one that is let go of is
hidden before it is removed. Whatever moment a process is killed at, every `step-…` folder is whole.
"""

import json
import os
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import DIGESTS_NAME, file_sha256, listed_digests
from vdvae_lr.files.paths import UnreadableError
from vdvae_lr.files.run_folder import CHECKPOINTS, EMA_NAME, complete_checkpoints, iteration_of
from vdvae_lr.files.whole_file import remove
from vdvae_lr.hub.weight_folder import CONFIG_NAME, WEIGHTS_NAME, read_weights
from vdvae_lr.training.snapshot import (
    COUNT_NAME,
    OPTIMISER_NAME,
    STATE_NAME,
    Position,
    Snapshot,
    flush,
)
from vdvae_lr.training.step import TrainingStep

_PATIENCE_S = 10.0
_NEEDED = frozenset({CONFIG_NAME, WEIGHTS_NAME, EMA_NAME, OPTIMISER_NAME, STATE_NAME})


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

    def write(self, snapshot: Snapshot) -> Path:
        """Write a checkpoint, then let go of old ones.

        Raises:
            InputError: the disk refused; what was there before is untouched.
        """
        final = self.folder / f"step-{snapshot.iteration:08d}"
        temporary = final.with_name(f".{final.name}.part")
        try:
            remove(temporary)
            temporary.mkdir(parents=True)
            snapshot.write(temporary)
            if os.path.lexists(final):  # a damaged one that the run went back behind, a file, a link that leads nowhere
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
        with suppress(OSError):  # what cannot be removed now is tried again after the next one
            self._prune(final)
        return final

    def _remove(self, path: Path) -> None:
        hidden = path.with_name(f".{path.name}.old.part")
        remove(hidden)
        path.replace(hidden)
        with suppress(OSError):  # the run's next start tries again
            remove(hidden)

    def _prune(self, newest: Path) -> None:
        """Keep the last ones up to `newest`; a later one is a damaged one that the run went back behind."""
        steps = [path for path in self.existing() if path.name <= newest.name]
        for path in steps[: -self._keep]:
            if not (self._snapshot_every and iteration_of(path) % self._snapshot_every == 0):
                self._remove(path)

    def existing(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return complete_checkpoints(self.folder)

    def newest_sound(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest checkpoint whose files match their digests, its state, and a sentence for each damaged later one.

        Raises:
            InputError: there are checkpoints, and all of them are damaged, or one that may not be read comes first.
        """
        complaints: list[str] = []
        for path in reversed(self.existing()):
            try:
                return path, read_checked_state(path), complaints
            except UnreadableError:
                raise  # it may be sound, and training from an earlier one would be lost work
            except InputError as error:
                complaints.append(str(error))
        if complaints:
            raise InputError(f"{complaints[0]} No earlier one is sound either; start anew with --fresh.")
        return None


class BackgroundSaver:
    """Writes checkpoints beside training, one at a time; what goes wrong is raised at the next `check`.

    A failure of training does not lose one: the interpreter waits for the thread at its end. The loss of another
    process, which ends this one at once, does.
    """

    def __init__(self, checkpoints: CheckpointFolder) -> None:
        self._checkpoints = checkpoints
        self._snapshot = Snapshot()
        self._writer = ThreadPoolExecutor(1, "checkpoint writer")
        self._writing: Future[Path] | None = None

    def save(self, training: TrainingStep, position: Position, settings: Mapping[str, Any], dataset: str) -> None:
        """Copy the state and begin to write it; waits for the checkpoint before (raises InputError as `write`)."""
        self.wait()
        self._snapshot.take(training, position, settings, dataset)
        self._writing = self._writer.submit(self._checkpoints.write, self._snapshot)

    def check(self) -> None:
        """Raise what the last write met, if it has ended."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written; raises what the last write met."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Begin no other; after a failure, give the last one a moment, for the other processes wait to hear of it."""
        if self._writing is not None:
            futures.wait([self._writing], timeout=_PATIENCE_S)
        self._writer.shutdown(wait=False)


def read_checked_state(checkpoint: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint after checking every file's digest.

    Raises:
        InputError: a file is missing, cut or changed.
        UnreadableError: this user may not read one.
    """
    try:
        digests = listed_digests(checkpoint)
    except UnreadableError:
        raise
    except InputError:
        digests = {}
    if not digests:
        raise InputError(f"checkpoint {checkpoint} is damaged: {DIGESTS_NAME} is missing, cut or changed.")
    for name in sorted(_NEEDED | digests.keys()):
        if _digest_if_readable(checkpoint / name) != digests.get(name, ""):
            raise InputError(f"checkpoint {checkpoint} is damaged: {name} is missing, cut or changed.")
    state: dict[str, Any] = json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
    return state


def _digest_if_readable(path: Path) -> str | None:
    try:
        return file_sha256(path, shown=False)
    except InputError as error:
        if isinstance(error.__cause__, PermissionError):  # nothing says that it is damaged
            raise
        return None


def restore(training: TrainingStep, checkpoint: Path, state: Mapping[str, Any]) -> Position:
    """Put a run back to where `checkpoint` left it, bit for bit, and say where that is."""
    optimiser = training.optimiser
    weights = optimiser.weights
    weights.load(weights.values.data, read_weights(checkpoint / WEIGHTS_NAME))
    weights.load(optimiser.ema.average, read_weights(checkpoint / EMA_NAME))
    moments: dict[str, dict[str, Tensor]] = {}
    tensors = read_weights(checkpoint / OPTIMISER_NAME)
    update_count = tensors.pop(COUNT_NAME)
    for name, tensor in tensors.items():
        kind, _, parameter = name.partition("/")
        moments.setdefault(kind, {})[parameter] = tensor
    optimiser.load_moments(moments, update_count)
    optimiser.scaler.load_state_dict(state["scaler"])
    optimiser.skipped.fill_(state["skipped"])
    optimiser.consecutive_skips.fill_(state["consecutive_skips"])
    optimiser.gradient_norm.fill_(state["gradient_norm"])
    if training.world.is_main:  # they are all processes' sums
        share = training.world.size / state["processes"]  # each process adds its own from here on
        training.sums.copy_(torch.tensor(state["sums"], dtype=torch.float64) * share)
        training.finite_steps.fill_(state["finite_steps"] * share)
    return Position(state["iteration"], state["loop"], state["processes"], state.get("images", {}))
