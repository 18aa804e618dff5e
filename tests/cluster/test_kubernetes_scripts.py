"""What runs inside the pods: exit codes that operators act on, waiting for workers, and saving before a pod ends."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import SCRIPTS, ended, recording, start, start_script, wait_until, write_program

PROCESS = """
env >{folder}/rank-$RANK
trap 'exit 75' TERM
code=$(cut -d , -f $((LOCAL_RANK + 1)) <<<"$CODES")
case $code in
wait) for _ in {{1..600}}; do sleep 0.1; done ;;
killed) kill -KILL $$ ;;
*) exit "$code" ;;
esac
"""
"""A process of a pod: notes its variables, and ends with its place's code in $CODES, or when it is told to stop."""


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    write_program(tmp_path / "bin" / "python", PROCESS.format(folder=tmp_path))
    return tmp_path


def start_pod(pod: Path, codes: str, **variables: str) -> subprocess.Popen[str]:
    operator = {"RANK": "1", "WORLD_SIZE": "4", "PET_NPROC_PER_NODE": "2", "MASTER_ADDR": "m", "MASTER_PORT": "23456"}
    variables = operator | {"CODES": codes, "RUNS": "/runs", "WAIT_S": "1"} | variables
    return start_script("kubernetes/processes.sh", programs=pod / "bin", **variables)


def both_run(pod: Path) -> bool:
    return all((pod / f"rank-{rank}").exists() for rank in (2, 3))


def test_processes_of_a_pod_are_numbered_among_all(pod: Path) -> None:
    assert ended(start_pod(pod, "0,0")) == 0
    for rank, local in ((2, 0), (3, 1)):
        variables = (pod / f"rank-{rank}").read_text().splitlines()
        assert {f"LOCAL_RANK={local}", "WORLD_SIZE=4", "MASTER_ADDR=m", "MASTER_PORT=23456"} <= set(variables)


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ("75,75", 143),  # told to stop, and saved: the operator restarts at 128 and more
        ("69,75", 143),  # a process of another pod is gone; that pod says what becomes of the job
        ("2,69", 2),
        ("69,1", 1),
        ("killed,69", 1),  # for memory, say: it would be killed again
        ("143,69", 1),  # nobody told this pod to stop
        ("2,wait", 2),  # the other one is not waited for
    ],
)
def test_a_pod_ends_with_a_code_that_the_operator_acts_on(pod: Path, codes: str, code: int) -> None:
    assert ended(start_pod(pod, codes)) == code


def test_a_pod_that_is_told_to_stop_has_its_processes_save(pod: Path) -> None:
    process = start_pod(pod, "wait,wait")
    wait_until(lambda: both_run(pod), "both processes start")
    assert ended(process, signal.SIGTERM) == 143


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """A launcher's pod: a worker that answers ssh once the file `up` is there, and a mpiexec of $THEN."""
    programs = tmp_path / "bin"
    write_program(programs / "ssh", f'echo "$@" >>{tmp_path}/ssh; test -e {tmp_path}/up\n')
    write_program(programs / "python", "exit 1\n")
    recording(programs / "mpiexec", tmp_path / "words", f'echo >>{tmp_path}/starts; eval "$THEN"')
    (programs / "hostfile").write_text("worker-0 slots=8\n")
    return tmp_path


def launch(launcher: Path, then: str) -> subprocess.Popen[str]:
    folders = {"RUNS": str(launcher / "runs"), "HOSTFILE": str(launcher / "bin" / "hostfile")}
    variables = {"THEN": then, "ASK_EVERY_S": "0.2", "LEAVING_S": "0", **folders}
    return start_script("kubernetes/launcher.sh", "--desc", "two words", programs=launcher / "bin", **variables)


def starts(launcher: Path) -> int:
    record = launcher / "starts"
    return len(record.read_text()) if record.exists() else 0


def test_the_launcher_waits_for_its_workers(launcher: Path) -> None:
    process = launch(launcher, 'touch "$DONE_FILE"')
    wait_until((launcher / "ssh").exists, "the launcher asks")
    assert starts(launcher) == 0
    (launcher / "up").touch()
    assert ended(process) == 0
    assert (launcher / "words").read_text().splitlines()[-2:] == ["--desc", "two words"]
    assert {line.split()[-2] for line in (launcher / "ssh").read_text().splitlines()} == {"worker-0"}


def test_the_launcher_goes_on_after_a_worker_was_preempted(launcher: Path) -> None:
    (launcher / "up").touch()
    then = f'[ "$(wc -l <{launcher}/starts)" -gt 1 ] || exit 75; touch "$DONE_FILE"'
    assert ended(launch(launcher, then)) == 0
    assert starts(launcher) == 2


@pytest.mark.parametrize("code", [1, 2, 69])
def test_the_launcher_ends_with_a_failure(launcher: Path, code: int) -> None:
    (launcher / "up").touch()
    assert ended(launch(launcher, f"exit {code}")) == code
    assert starts(launcher) == 1


def test_a_launcher_that_is_preempted_has_the_run_save(launcher: Path) -> None:
    (launcher / "up").touch()
    process = launch(launcher, f"trap 'exit 75' USR1; touch {launcher}/ready; while :; do sleep 0.05; done")
    wait_until((launcher / "ready").exists, "the run starts")
    assert ended(process, signal.SIGTERM) == 75
    assert starts(launcher) == 1


LISTENING = "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75)); {ready}; time.sleep(60)"
TOLD_ALREADY = "import time; {ready}; time.sleep(1)"


def test_a_worker_that_ends_tells_the_processes_that_still_listen(tmp_path: Path) -> None:
    """A second signal would end a run unsaved: one that the launcher told already is only waited for."""
    processes = []
    for number, code in enumerate((LISTENING, TOLD_ALREADY)):
        ready = f"open({str(tmp_path / str(number))!r}, 'w')"
        processes.append(start(sys.executable, "-c", code.format(ready=ready), programs=tmp_path))
    wait_until(lambda: all((tmp_path / name).exists() for name in "01"), "both start")
    pids = [str(process.pid) for process in processes]
    hook = start_script("kubernetes/stop_worker.sh", *pids, programs=tmp_path, BEFORE_S="0")
    assert [ended(process) for process in processes] == [75, 0]  # reaped here: the hook sees them gone
    assert ended(hook) == 0


def test_a_worker_knows_the_processes_that_mpiexec_starts() -> None:
    script = (SCRIPTS / "kubernetes" / "stop_worker.sh").read_text()
    pattern = re.search(r"grep --quiet '(.+)'", script)
    assert pattern is not None
    assert re.search(pattern[1], "/opt/venv/bin/python scripts/cluster/mpi_train.py --save_dir /runs ")
    assert "train[0]=scripts/cluster/mpi_train.py" in (SCRIPTS / "mpiexec.sh").read_text()
    assert not re.search(pattern[1], "/opt/venv/bin/python -c main_path='/opt/vdvae_lr/scripts/cluster/mpi_train.py' ")
