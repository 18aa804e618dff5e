"""The process of one tracker, wandb or trackio. `trackers.py` starts this file as a program.

Standard input has one JSON object a line: what to track, then numbers and pictures, then how the run ended. Standard
output has what a person should know; a reason and exit code 1 if tracking ends. This file imports nothing of the
package, since that would import torch a second time.

RUN/wandb.json keeps the tracker's id of the run, and the last iteration of each kind that was sent. A run that goes on
repeats steps; what a tracker has of them already is not sent again.
"""

import contextlib
import json
import os
import secrets
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

LAST_WORDS = "\x04"
"""Begins what this process says just before it ends."""
_FINISH_S = 60.0  # for a process whose run is gone, and can no longer end it
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Tracker(Protocol):
    """What this process does with a tracker's library."""

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Send numbers."""

    def picture(self, iteration: int, name: str, path: str) -> None:
        """Send a PNG file."""

    def finish(self, failed: bool) -> None:
        """Wait until everything is sent."""


class Wandb:
    """Weights & Biases. The iteration is a number of its own, since wandb drops steps that go back."""

    def __init__(self, about: Mapping[str, Any], number: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=about["project"],
            name=about["name"],
            config=about["config"],
            id=number,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", about["folder"]),
            settings=wandb.Settings(silent=True, console="off", x_stats_pid=about["process"]),
        )
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self._run.log({"iteration": iteration, **values})

    def picture(self, iteration: int, name: str, path: str) -> None:
        """Send a PNG file."""
        self._run.log({"iteration": iteration, name: self._wandb.Image(path)})

    def finish(self, failed: bool) -> None:
        """Wait until everything is sent, and end wandb's own processes."""
        self._run.finish(exit_code=int(failed))
        self._wandb.teardown()


class Trackio:
    """trackio: a database on this machine, or what its environment variables name."""

    def __init__(self, about: Mapping[str, Any], number: str) -> None:
        import trackio

        self._trackio = trackio
        self._run = trackio.init(
            about["project"],
            name=about["name"],
            config=about["config"],
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._run.id = number  # trackio itself goes on only by name, with the newest run that has it

    def log(self, iteration: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self._run.log(dict(values), step=iteration)

    def picture(self, iteration: int, name: str, path: str) -> None:
        """Send a PNG file."""
        self._run.log({name: self._trackio.Image(path)}, step=iteration)

    def finish(self, failed: bool) -> None:
        """Wait until everything is in the database."""
        self._run.finish()


class Sent:
    """The tracker's id of the run, and what was sent: kept in a file of the run's folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.id: str = kept.get("id") or secrets.token_hex(8)
        self._last: dict[str, int] = kept.get("sent", {})

    def has(self, kind: str, iteration: int) -> bool:
        """Whether this, or something later of its kind, was sent."""
        return iteration <= self._last.get(kind, -1)

    def note(self, kind: str, iteration: int) -> None:
        """Keep that this was sent."""
        self._last[kind] = iteration
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        temporary = self._path.with_name(f".{self._path.name}.part")
        temporary.write_text(json.dumps({"id": self.id, "sent": self._last}) + "\n", encoding="utf-8")
        temporary.replace(self._path)


def follow(tracker: Tracker, sent: Sent, lines: Iterable[str]) -> bool:
    """Send what the lines say, once; returns whether the run failed, or was killed and could not say so."""
    for line in lines:
        if not line.endswith("\n"):
            return True
        message = json.loads(line)
        if "failed" in message:
            return bool(message["failed"])
        kind, iteration = message["kind"], message["iteration"]
        if sent.has(kind, iteration):
            continue
        if "path" in message:
            tracker.picture(iteration, kind, message["path"])
        else:
            tracker.log(iteration, message["values"])
        sent.note(kind, iteration)
    return True


def track(lines: IO[str], say: Callable[[str], None]) -> None:
    """Track a run to its end; any exception means that it cannot be tracked."""
    about = json.loads(lines.readline())
    name = about["tracker"]

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if "trackio" in str(message).lower():  # it raises nothing, and warns where numbers are lost
            say(str(message))

    warnings.simplefilter("always")
    warnings.showwarning = show
    sent = Sent(Path(about["folder"]) / f"{name}.json")
    tracker: Tracker = (Wandb if name == "wandb" else Trackio)(about, sent.id)
    sent.save()
    failed = follow(tracker, sent, lines)
    limit = threading.Timer(_FINISH_S, os._exit, (1,))
    limit.daemon = True
    limit.start()
    tracker.finish(failed)


def reason(error: BaseException) -> str:
    """Why tracking ended, in one line."""
    if "wandb login" in str(error):
        return "no account is set up on this machine; run `wandb login`, or set WANDB_MODE=offline"
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__


def main() -> None:
    """Keep the pipes for this program alone: libraries print and ask, and get the null device."""
    for name in filter(lambda name: hasattr(signal, name), _SIGNALS):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # the run hears them, and says when it ends
    lines, out = os.fdopen(os.dup(0), encoding="utf-8"), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)

    def say(words: str) -> None:
        with contextlib.suppress(OSError):  # the run may be gone
            os.write(out, words.encode(errors="replace") + b"\n")

    try:
        track(lines, say)
    except BaseException as error:
        say(f"{LAST_WORDS}{reason(error)}")
        os._exit(1)  # a library's exit handlers may wait for a network
    os._exit(0)


if __name__ == "__main__":
    main()
