"""train.py with a fault in it: `FAULT=kind:rank:number` happens on one process of a run that knows nothing of it.

| kind  | what happens, and when                                                                       |
|-------|----------------------------------------------------------------------------------------------|
| kill  | SIGKILL at the beginning of step `number`                                                    |
| begin | SIGKILL `number` milliseconds after the model was built, while the readers start             |
| late  | SIGKILL `number` milliseconds after the first step began                                     |
| look  | SIGKILL at the beginning of the `number`-th evaluation                                       |
| save  | SIGKILL while the `number`-th file since the start is being brought to the disk              |
| note  | nothing, at step `number`                                                                    |
| raise | an exception at step `number`                                                                |
| stand | the process stands still at step `number`                                                    |
| freeze| every thread of it does                                                                      |
| nan   | the loss of step `number` is NaN                                                             |
| inf   | the loss of step `number`, and of every later one, is infinite                               |
| full  | from step `number` on, no file of more than 20 kB can be written                             |
| spoil | at step `number` the first half of the images turns into text                                |
| reader| at step `number` the processes that read images are killed                                   |
| server| at step `number` the process that they are forked from is killed                             |
| parent| at step `number` the launcher is killed                                                      |
| count | every `number` steps a line with memory, open files and threads goes to the file COUNT_FILE  |

The moment of the fault is left in the file FAULT_MARK, if that variable is set.
"""

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from torch import distributed

from vdvae_lr.cli.train import main
from vdvae_lr.training import checkpoint, observe, step
from vdvae_lr.training.step import TrainingStep

KIND, RANK, NUMBER = (os.environ.get("FAULT") or "none:0:0").split(":")
AT = int(NUMBER)
LARGEST_FILE_BYTES = 20_000
STOOD_STILL_S = 600


def mark() -> None:
    if "FAULT_MARK" in os.environ:
        Path(os.environ["FAULT_MARK"]).write_text(repr(time.time()))


def kill() -> None:
    mark()
    os.kill(os.getpid(), signal.SIGKILL)


def stand() -> None:
    mark()
    time.sleep(STOOD_STILL_S)


def freeze() -> None:
    mark()
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    mark()
    raise ValueError("injected for a test")


def fill_disk() -> None:
    mark()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))


def spoil_images() -> None:
    root = Path(sys.argv[sys.argv.index("--data_root") + 1])
    images = sorted(root.iterdir())
    for path in images[: len(images) // 2]:
        path.write_text("no image any more")


def kill_readers() -> None:
    mark()
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)


def kill_server() -> None:
    mark()
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)


def count() -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    record = {
        "memory_kb": int(status["VmRSS"].split()[0]),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": int(status["Threads"]),
    }
    with Path(os.environ["COUNT_FILE"]).open("a") as file:
        file.write(json.dumps(record) + "\n")


def kill_launcher() -> None:
    mark()
    os.kill(os.getppid(), signal.SIGKILL)


AT_STEP: dict[str, Callable[[], None]] = {
    "kill": kill,
    "note": mark,
    "raise": fail,
    "stand": stand,
    "freeze": freeze,
    "full": fill_disk,
    "spoil": spoil_images,
    "reader": kill_readers,
    "server": kill_server,
    "parent": kill_launcher,
}


def install() -> None:
    """Put the fault between the loop and its step."""
    original = TrainingStep.__call__
    started = False

    def faulty(self: TrainingStep, iteration: int, alpha: float, batches: Any, *others: Any) -> None:
        nonlocal started
        if self.world.rank == int(RANK):
            if KIND in AT_STEP and iteration == AT:
                AT_STEP[KIND]()
            if KIND == "late" and not started:
                threading.Timer(AT / 1000, kill).start()
            if KIND == "count" and iteration % AT == 0:
                count()
            poison(iteration)
        started = True
        original(self, iteration, alpha, batches, *others)

    TrainingStep.__call__ = faulty  # type: ignore[method-assign]
    if KIND == "save":
        checkpoint.flush = killing_after(AT, checkpoint.flush)
    if KIND == "look":
        observe.evaluate_bound = killing_after(AT, observe.evaluate_bound)
    if KIND == "begin":
        TrainingStep.__init__ = killing_soon_after(TrainingStep.__init__)  # type: ignore[method-assign]


def poison(iteration: int) -> None:
    """Make the loss of the coming step what `KIND` says."""
    bad = (KIND == "nan" and iteration == AT) or (KIND == "inf" and iteration >= AT)
    step.batch_terms = spoilt_terms if bad else sound_terms


sound_terms = step.batch_terms


def spoilt_terms(*arguments: Any, **named: Any) -> Any:
    terms = sound_terms(*arguments, **named)
    return dataclasses.replace(terms, total=terms.total * float(KIND), rate=terms.rate * float(KIND))


def killing_after(calls: int, original: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls -= 1
        if calls == 0 and this_process():
            kill()
        return original(*arguments, **named)

    return counted


def killing_soon_after(original: Callable[..., None]) -> Callable[..., None]:
    def built(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        if this_process():
            threading.Timer(AT / 1000, kill).start()

    return built


def this_process() -> bool:
    """Whether the fault is this process's; asked after the processes found each other."""
    return not distributed.is_initialized() or distributed.get_rank() == int(RANK)


if __name__ == "__main__":
    install()
    sys.exit(main())
