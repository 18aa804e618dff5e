"""scripts/cluster/mpiexec.sh: what it hands to Open MPI, what it makes of the end, and a real run."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import AS_ROOT, log_of, train_command
from stand_ins import SCRIPTS, ended, recording, run_script, start_script, wait_until, write_program
from training_runs import write_images

ENDS_WELL = 'touch "$DONE_FILE"'
"""What every process of a finished run does (scripts/cluster/mpi_train.py)."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A Python, never started, and beside it a mpiexec that notes its words and does what $THEN says."""
    write_program(tmp_path / "bin" / "python", "exit 1\n")
    recording(tmp_path / "bin" / "mpiexec", tmp_path / "mpiexec", 'eval "${THEN-}"')
    (tmp_path / "bin" / "hostfile").write_text("localhost slots=2\n")
    return tmp_path / "bin"


def start(programs: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folders = {"RUNS": str(programs.parent / "runs"), "HOSTFILE": str(programs / "hostfile")}
    return run_script("mpiexec.sh", *words, programs=programs, **folders | variables)


def test_words_and_variables_reach_every_process(programs: Path) -> None:
    variables = {"HPS": "ffhq256", "ALPHA_T": "1.0", "DATA": "/data", "PROCESSES": "16", "NCCL_DEBUG": "INFO"}
    assert start(programs, "--desc", "two words", THEN=ENDS_WELL, **variables).returncode == 0
    words = (programs.parent / "mpiexec").read_text().splitlines()
    first, train = words[: words.index("-x")], words[words.index(str(programs / "python")) :]
    assert first == ["--hostfile", str(programs / "hostfile"), "-n", "16", "--bind-to", "none"]
    assert {words[i + 1] for i, word in enumerate(words) if word == "-x"} == {
        *("DONE_FILE", "HF_HOME", "HF_HUB_OFFLINE", "NCCL_DEBUG", "OMP_NUM_THREADS")
    }
    assert train[1:] == [
        *("scripts/cluster/mpi_train.py", "--hps", "ffhq256", "--alpha_T", "1.0", "--data_root", "/data"),
        *("--save_dir", str(programs.parent / "runs"), "--desc", "two words"),
    ]


@pytest.mark.parametrize(
    ("then", "code"),
    [
        (ENDS_WELL, 0),
        ("exit 75", 75),
        ("exit 2", 2),
        ("exit 0", 69),  # what Open MPI 5.0.11 does when a machine is lost
    ],
)
def test_only_a_run_that_says_so_is_done(programs: Path, then: str, code: int) -> None:
    result = start(programs, THEN=then)
    assert result.returncode == code
    assert ("mpiexec lost a machine" in result.stderr) == (code == 69)
    assert list((programs.parent / "runs").iterdir()) == []


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGUSR1])
def test_mpiexec_gets_the_signal_that_it_passes_on(programs: Path, tmp_path: Path, told: signal.Signals) -> None:
    """SIGTERM would leave its processes a second."""
    then = f"trap 'exit 75' USR1; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    folders = {"RUNS": str(tmp_path), "HOSTFILE": str(programs / "hostfile")}
    process = start_script("mpiexec.sh", programs=programs, THEN=then, **folders)
    wait_until((tmp_path / "ready").exists, "mpiexec starts")
    assert ended(process, told) == 75


def test_a_missing_hostfile_is_named(programs: Path) -> None:
    result = start(programs, HOSTFILE="/nowhere/hosts")
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no hostfile '/nowhere/hosts'" in result.stderr


def test_the_example_is_a_hostfile() -> None:
    lines = (SCRIPTS / "hostfile.example").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+ slots=\d+", line) for line in lines)
    assert sum(" slots=" in line for line in lines) == 2


@pytest.mark.slow
def test_two_processes_train_together(tmp_path: Path) -> None:
    """A real Open MPI; code 0 says that mpi_train.py said so."""
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("localhost slots=2\n")
    words = train_command(write_images(tmp_path / "images"), tmp_path / "runs", iters=2, iters_per_eval=9)[1:]
    variables = AS_ROOT | {"RUNS": str(tmp_path / "runs"), "HOSTFILE": str(hostfile), "PYTHON": sys.executable}
    result = run_script("mpiexec.sh", *words, programs=tmp_path, **variables)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Finished") == 1
    assert log_of(tmp_path / "runs")[-1]["iteration"] == 2
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run"]
