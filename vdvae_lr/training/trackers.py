"""Where a run shows itself while it goes on (`--track`): TensorBoard, Weights & Biases, trackio.

No tracker can fail, stop or delay a run. The first failure of one is one warning line, and the run goes on without it.
wandb and trackio each have a process of their own (`tracker_process.py`): there they may wait for a network, print, ask
for an account, or handle signals and the end of Python as they like. The run only puts lines into a queue.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Protocol, cast

import numpy as np
from PIL import Image

from vdvae_lr.errors import InputError, nearest_name_hint, printable
from vdvae_lr.training.tracker_process import LAST_WORDS

TRACKERS = ("tensorboard", "wandb", "trackio")
PICTURES = "pictures"
"""The name of the run's pictures in a tracker."""
_PROGRAM = Path(__file__).with_name("tracker_process.py")
_FINISH_S = 20.0  # a batch system may kill the run 30 s after its signal


def chosen_trackers(track: str) -> tuple[str, ...]:
    """The trackers that `--track` names, with commas between them; none for an empty text and for `none`.

    Raises:
        InputError: there is no tracker of that name.
    """
    names = [name for word in track.split(",") if (name := word.strip()) not in ("", "none")]
    for name in names:
        if name not in TRACKERS:
            hint = nearest_name_hint(name, TRACKERS)
            raise InputError(f"there is no tracker '{name}'{hint}; track takes {', '.join(TRACKERS)}, or none.")
    return tuple(dict.fromkeys(names))


def check_installed(track: str) -> None:
    """Refuse a tracker whose package is not installed (raises InputError). A folder called `wandb` is no package."""
    for name in chosen_trackers(track):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise InputError(
                f"track names {name}, which is not installed; pip install 'vdvae_lr[{name}]', or leave it out."
            )


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about a run at its start."""

    folder: Path
    project: str
    name: str
    config: Mapping[str, Any]
    """The run's settings."""
    resume_at: int
    """Iteration at which the run goes on; 0: it is new."""


class Tracker(Protocol):
    """One tracker. Every method may raise any exception."""

    def write(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """Show numbers, by the whole names of their curves."""

    def picture(self, iteration: int, path: Path) -> None:
        """Show a PNG file."""

    def finish(self, *, failed: bool) -> None:
        """Begin to finish, without a wait: the run ended, by an error or not."""

    def close(self, seconds: float) -> None:
        """Wait so long for the end, at most."""


class TrackerError(Exception):
    """A tracker ended before the run did; the message says why."""


class TensorBoard:
    """Event files in the run's folder. What an earlier start wrote after `resume_at` is no longer shown."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a tenth of a second, which no other command needs

        purge = run.resume_at + 1 if run.resume_at else None
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)
        if not run.resume_at:
            settings = "\n".join(f"    {name} = {value!r}" for name, value in run.config.items())
            self._writer.add_text("settings", settings, 0)

    def write(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def picture(self, iteration: int, path: Path) -> None:
        """Add the picture."""
        with Image.open(path) as opened:
            self._writer.add_image(PICTURES, np.asarray(opened.convert("RGB")), iteration, dataformats="HWC")

    def finish(self, *, failed: bool) -> None:
        """Do nothing: event files do not say how a run ended."""

    def close(self, seconds: float) -> None:
        """Write what is still in memory."""
        self._writer.close()


class TrackerProcess:
    """A tracker in a process of its own.

    It does not hear the terminal's Ctrl-C, and it ends by itself when this process is gone.
    """

    def __init__(self, name: str, run: TrackedRun, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._said = cast(IO[bytes], self._process.stdout)
        os.set_blocking(self._said.fileno(), False)
        self._lines = SimpleQueue[bytes | None]()
        threading.Thread(target=self._pass_on, name=f"lines for {name}", daemon=True).start()
        about = {"folder": str(run.folder.absolute()), "project": run.project, "name": run.name}
        self._send(about | {"tracker": name, "config": dict(run.config), "process": os.getpid()})

    def _pass_on(self) -> None:
        """Give the process its lines; if it is gone or does not read, this thread alone notices."""
        with suppress(OSError), cast(IO[bytes], self._process.stdin) as pipe:
            for line in iter(self._lines.get, None):
                pipe.write(line)
                pipe.flush()

    def _send(self, message: Mapping[str, object]) -> None:
        self._lines.put(json.dumps(message).encode() + b"\n")

    def write(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """Pass numbers on (raises TrackerError if the process has ended)."""
        self._check()
        self._send({"kind": kind, "iteration": iteration, "values": dict(values)})

    def picture(self, iteration: int, path: Path) -> None:
        """Pass a picture's path on (raises TrackerError if the process has ended)."""
        self._check()
        self._send({"kind": PICTURES, "iteration": iteration, "path": str(path.absolute())})

    def _check(self) -> None:
        ended = self._process.poll() is not None
        said = (self._said.read() or b"").decode(errors="replace")
        if ended or LAST_WORDS in said:
            self._process.wait()  # it may have said why, and not be gone yet
            self._end(said)
        elif said:
            self._warn(said)

    def finish(self, *, failed: bool) -> None:
        """Tell the process that the run has ended."""
        self._send({"failed": failed})

    def close(self, seconds: float) -> None:
        """Let the process finish, for a limited time (raises TrackerError if it cannot)."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            with suppress(TrackerError):
                self._end()
            raise TrackerError(
                f"it did not finish within {_FINISH_S:.0f} s; its last numbers may be missing (log.jsonl has them)"
            ) from None
        self._end()

    def _end(self, said: str = "") -> None:
        """Let go of a process that has ended, and said this before; raises TrackerError if it ended badly."""
        self._lines.put(None)
        with self._said:
            said += (self._said.read() or b"").decode(errors="replace")
        said = said.replace(LAST_WORDS, "").strip()
        code = self._process.returncode
        if code:
            raise TrackerError(said or f"its process ended with code {code}")
        if said:
            self._warn(said)


class Trackers:
    """The chosen trackers of a run, each until its first failure; `close` it at the end.

    Args:
        track: names, as `--track` takes them.
        run: the run; only its main process tracks.
        say: shows a line to the person.
    """

    def __init__(self, track: str, run: TrackedRun, say: Callable[[str], None]) -> None:
        self._say = say
        self._warned: set[str] = set()
        self._open: dict[str, Tracker] = {}
        for name in chosen_trackers(track):
            with self._going_on_without(name):
                self._open[name] = self._opened(name, run)

    def _opened(self, name: str, run: TrackedRun) -> Tracker:
        if name == "tensorboard":
            return TensorBoard(run)
        return TrackerProcess(name, run, lambda said: self._warn(name, f"{name} says: {said}"))

    def write(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """Show numbers, by the whole names of their curves."""
        for name, tracker in list(self._open.items()):
            with self._going_on_without(name):
                tracker.write(kind, iteration, values)

    def picture(self, iteration: int, path: Path) -> None:
        """Show a PNG file."""
        for name, tracker in list(self._open.items()):
            with self._going_on_without(name):
                tracker.picture(iteration, path)

    def close(self, *, failed: bool) -> None:
        """Let the trackers finish, all at the same time."""
        end = time.monotonic() + _FINISH_S
        for name, tracker in list(self._open.items()):
            with self._going_on_without(name):
                tracker.finish(failed=failed)
        while self._open:
            name, tracker = self._open.popitem()
            with self._going_on_without(name):
                tracker.close(max(0.0, end - time.monotonic()))

    @contextmanager
    def _going_on_without(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a tracker raises, the run is worth more
            self._open.pop(name, None)
            reason = str(error) if isinstance(error, TrackerError) else f"{type(error).__name__}: {error}"
            self._warn(name, f"{name} no longer tracks the run: {reason}")

    def _warn(self, name: str, words: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            self._say(f"warning: {printable(' '.join(words.split())).removesuffix('.')}.")
