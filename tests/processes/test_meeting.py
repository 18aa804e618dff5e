"""Processes that wait for others which do not come: they say for whom, hear Ctrl-C, and give up with a remedy."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from launching import free_job
from started_processes import Start

from vdvae_lr.errors import InputError
from vdvae_lr.processes import meeting
from vdvae_lr.processes.launchers import Place
from vdvae_lr.processes.meeting import begun, connected, joined_store, wait_for_all

REMEDY = "start with a horn"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "LIMIT_S", 0.6)
    monkeypatch.setattr(meeting, "_NOTICES_S", (0.1,))
    monkeypatch.setattr(meeting, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A program that answers nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def place(rank: int, port: int, size: int = 4, **more: Any) -> Place:
    return Place(rank, size, 0, "127.0.0.1", port, remedy=REMEDY, **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_process_0_says_which_others_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    watch = MagicMock(missing=lambda: [1, 3])
    with pytest.raises(InputError, match=rf"in vain for 2 of 4 processes .number 1, 3.*{REMEDY}"):
        wait_for_all(place(0, 1), watch)
    notice = capsys.readouterr().err
    assert "Process 0 of 4 has waited" in notice and "2 of 4 processes (number 1, 3), at 127.0.0.1:1" in notice
    assert REMEDY in notice and notice.count("\n") == 1
    assert watch.at.called  # or the watch would take the waiting for standing still


def test_the_others_leave_the_talking_to_process_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="process 2 of 4 waited"):
        wait_for_all(place(2, 1), MagicMock(missing=lambda: [3]))
    assert capsys.readouterr().err == ""


def test_a_long_list_of_missing_processes_is_cut() -> None:
    with pytest.raises(InputError, match=r"999 of 1000 processes \(number 1, 2, 3, 4, 5, 6, 7, 8, …\)"):
        wait_for_all(place(0, 1, 1000), MagicMock(missing=lambda: list(range(1, 1000))))


@pytest.mark.parametrize("launcher_hosts", [False, True])
def test_another_process_says_that_nobody_answers(capsys: pytest.CaptureFixture[str], launcher_hosts: bool) -> None:
    host = "the launcher" if launcher_hosts else "process 0"
    with pytest.raises(InputError, match=rf"process 2 of 4 waited .* in vain for {host} \(Connection refused\)"):
        connected(place(2, free_port(), launcher_hosts=launcher_hosts))
    assert f"{host} (Connection refused)" in capsys.readouterr().err


def test_a_name_that_nobody_knows_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster may give the first machine its name after the second one has started."""
    unknown = MagicMock(side_effect=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(InputError, match=r"in vain for process 0 \(Name or service not known\), at first:1"):
        connected(Place(1, 2, 0, "first", 1, remedy=REMEDY))
    assert unknown.call_count > 1


def test_another_program_at_the_port_is_no_trap(listener: socket.socket) -> None:
    with pytest.raises(InputError, match="in vain for an answer"):
        connected(place(1, listener.getsockname()[1]))
    with pytest.raises(InputError, match=rf"cannot offer a place to meet at .*{REMEDY}"):
        connected(place(0, listener.getsockname()[1]))


def test_processes_that_come_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "LIMIT_S", 60.0)
    port = free_port()
    late = begun(lambda: connected(place(1, port, 2)))  # before process 0
    host = connected(place(0, port, 2))
    late.result(60).set("word", "said")
    assert host.get("word") == joined_store(place(1, port, 2)).get("word") == b"said"


def test_what_is_begun_hands_on_its_error() -> None:
    assert begun(threading.current_thread).result(60) is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        begun(lambda: 1 // 0).result(60)


_LONE = """
import signal, sys
from vdvae_lr.processes import meeting
from vdvae_lr.processes.failures import ends_with_exit_code
from vdvae_lr.processes.world import start_world
meeting._NOTICES_S = (0.1,)
signal.signal(signal.SIGINT, signal.default_int_handler)
@ends_with_exit_code
def command():
    start_world("cpu")
sys.exit(command())
"""


@pytest.mark.parametrize("rank", [0, 2])
def test_ctrl_c_ends_the_waiting_at_once(rank: int) -> None:
    step = {"SLURM_JOB_ID": str(free_job()), "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "127.0.0.1"}
    slurm = step | {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    torchrun = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "MASTER_ADDR": "127.0.0.1"}
    start = Start([sys.executable, "-c", _LONE], torchrun | {"MASTER_PORT": str(free_port())} if rank else slurm)
    with subprocess.Popen(start.command, env=start.environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        notice = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert notice.startswith(f"Process {rank} of 4 has waited")
    assert process.returncode == 130
    assert rest.endswith("interrupted\n") and "Traceback" not in rest
