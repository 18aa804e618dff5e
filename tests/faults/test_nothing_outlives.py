"""Whichever process of a run is killed, and whenever, no other one lives on: not a peer, a reader or a launcher."""

import itertools
import re
import signal
import time
import uuid
from pathlib import Path

import pytest
from launching import launch, train_command
from started_processes import Ended
from training_runs import write_images

FAULTY = Path(__file__).parent / "faulty_train.py"
LONG = {"iters": 100_000, "iters_per_save": 10, "iters_per_eval": 20, "iters_per_print": 1000, "num_workers": 2}
WITHIN_S = 30
MOMENTS = {"starting": "begin:{}:300", "reading": "kill:{}:5", "evaluating": "look:{}:1"}
SAVING = "save:0:2"  # only process 0 writes
NO_PROC = not Path("/proc/self/environ").exists()

pytestmark = pytest.mark.skipif(NO_PROC, reason="which processes are left is read from /proc")


def processes_left(mark: str) -> dict[int, str]:
    """Command lines, by process number, of the processes that inherited the variable `mark`."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found


def broken_run(tmp_path: Path, launcher: str, fault: str) -> Ended:
    """The first of the started commands, once every process is gone; fails when one is left 30 s after the fault."""
    images, mark, name = write_images(tmp_path / "images"), tmp_path / "mark", uuid.uuid4().hex
    train = train_command(images, tmp_path / "out", FAULTY, **LONG)
    ended = launch(launcher, tmp_path / "output", train, FAULT=fault, FAULT_MARK=str(mark), RUN_NAME=name)
    broken_at = float(mark.read_text())
    while left := processes_left(name):
        assert time.time() - broken_at < WITHIN_S, left
        time.sleep(0.1)
    assert all(one.code for one in ended), "one is still running, or ended well"
    return Ended(ended[0].code, "".join(one.output for one in ended), "".join(one.errors for one in ended))


def check_cause(ended: Ended, launcher: str, rank: int) -> None:
    """The killed process is named, and the last word is a sentence: nothing of a library buries it."""
    said = ended.errors + ended.output
    if launcher == "srun":  # here without SLURM itself, so it is for the other process to say
        assert re.search(rf"error: process {rank}\b.*; process {1 - rank} ends with it\.\n$", ended.errors), said
        assert "frame #" not in said
    elif launcher != "alone":
        assert re.search(rf"(rank|process)\s*:?\s*{rank}\b", said.lower()), said
        assert "signal 9" in said.lower(), said
    assert "leaked semaphore" not in said


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["begin:0:300", "look:0:1"])
def test_a_lone_process_leaves_no_reader(tmp_path: Path, fault: str) -> None:
    check_cause(broken_run(tmp_path, "alone", fault), "alone", 0)


@pytest.mark.slow
def test_peers_and_their_readers_end(tmp_path: Path) -> None:
    check_cause(broken_run(tmp_path, "mpiexec", "kill:0:5"), "mpiexec", 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("reader", marks=pytest.mark.faults), "server"])
def test_a_lost_reader_ends_the_run(tmp_path: Path, kind: str) -> None:
    ended = broken_run(tmp_path, "mpiexec", f"{kind}:1:5")
    assert ended.errors.count("error: process 1 failed: a process that reads images died") == 1, ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["mpiexec", pytest.param("torchrun", marks=pytest.mark.faults)])
def test_a_killed_launcher_takes_its_run_along(tmp_path: Path, launcher: str) -> None:
    assert broken_run(tmp_path, launcher, "parent:0:5").code == -signal.SIGKILL


@pytest.mark.faults
@pytest.mark.parametrize(
    ("launcher", "rank", "moment"),
    [
        *itertools.product(["mpiexec", "torchrun", "srun"], [0, 1], MOMENTS),
        *((launcher, 0, "saving") for launcher in ("mpiexec", "torchrun")),
    ],
)
def test_every_moment_under_every_launcher(tmp_path: Path, launcher: str, rank: int, moment: str) -> None:
    fault = SAVING if moment == "saving" else MOMENTS[moment].format(rank)
    check_cause(broken_run(tmp_path, launcher, fault), launcher, rank)


@pytest.mark.faults
@pytest.mark.parametrize("after_ms", range(0, 3000, 250))
def test_a_reader_that_is_being_started_is_no_orphan(tmp_path: Path, after_ms: int) -> None:
    """Over the seconds in which the server loads torch and forks, and the readers begin."""
    assert broken_run(tmp_path, "alone", f"begin:0:{after_ms}").code == -signal.SIGKILL
