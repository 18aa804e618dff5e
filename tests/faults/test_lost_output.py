"""Output that nobody reads, or that a full disk refuses: the run saves and ends with the documented code."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import CHECKOUT, train_command
from started_processes import Start
from training_runs import write_images

from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_READER_GONE, EXIT_RUN_AGAIN

ENDLESS = {"iters": 100_000, "iters_per_print": 10, "iters_per_eval": 100_000, "iters_per_images": 100_000}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def piped(tmp_path: Path, place: str, *launcher: str, **changes: object) -> tuple[int, str]:
    """The exit code of a run whose output goes to `place`, and what it said on standard error."""
    command = [
        sys.executable,
        *launcher,
        *train_command(write_images(tmp_path / "images"), tmp_path / "out", **changes),
    ]
    start = Start(command, {"PYTHONPATH": str(CHECKOUT)})
    script = f'"$@" {place}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        env=start.environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def saved(tmp_path: Path) -> int:
    """The step of the newest checkpoint."""
    return max(
        int(path.name.removeprefix("step-")) for path in (tmp_path / "out" / "run" / "checkpoints").glob("step-*")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("| head -n 1 >/dev/null", EXIT_READER_GONE, "nobody reads the output any more"),
        (">/dev/full", EXIT_INPUT_ERROR, "standard output cannot be written (No space left on device)"),
    ],
)
def test_a_run_that_cannot_print_saves_and_says_so(tmp_path: Path, place: str, code: int, words: str) -> None:
    ended, errors = piped(tmp_path, place, **ENDLESS)
    assert ended == code
    assert errors.count("\n") == 1 and words in errors
    assert f"after step {saved(tmp_path)} and saved; run the same command again" in errors


@pytest.mark.slow
def test_two_processes_end_together(tmp_path: Path) -> None:
    """Only one of them prints; neither calls the other one lost."""
    ended, errors = piped(tmp_path, "| head -n 1 >/dev/null", *TORCHRUN, **ENDLESS)
    assert ended == 1  # torchrun's own
    assert f"exitcode  : {EXIT_READER_GONE}" in errors  # it ends the other one, where that has not ended yet
    assert f"after step {saved(tmp_path)} and saved" in errors
    assert "ends with it" not in errors
    assert 'train.py", line' not in errors  # torchrun has a traceback of its own


@pytest.mark.slow
def test_closed_streams_do_not_hinder(tmp_path: Path) -> None:
    assert piped(tmp_path, "<&- >&- 2>&-")[0] == 0
    assert saved(tmp_path) == 6


@pytest.mark.slow
@pytest.mark.parametrize("hears_the_signal", [True, False])
def test_a_terminal_that_closes_lets_the_run_save(tmp_path: Path, hears_the_signal: bool) -> None:
    """The system then sends SIGHUP to the run and its readers, and every write fails. Either may come first."""
    command = [
        sys.executable,
        *train_command(write_images(tmp_path / "images"), tmp_path / "out", num_workers=1, **ENDLESS),
    ]
    process, terminal = pty.fork()
    if process == 0:
        if not hears_the_signal:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execve(sys.executable, command, Start(command, {"PYTHONPATH": str(CHECKOUT)}).environment())
    shown = b""
    while b"step" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == EXIT_RUN_AGAIN
    assert saved(tmp_path) > 0
