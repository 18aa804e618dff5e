"""Something slow that several processes do together holds none of them up; where it fails on one, all end with it."""

import re
import threading
import time
from pathlib import Path

import patient_process
import pytest
import torch
from launching import launch
from patient_process import SENTENCE
from started_processes import Ended

from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_PEER_LOST, InputError
from vdvae_lr.processes.world import World

AT_ONCE_S = 20


def together(folder: Path, scenario: str) -> list[Ended]:
    """What became of two real processes, by rank."""
    script = str(Path(patient_process.__file__))
    return launch("srun", folder / "output", [script, scenario], MARK=str(folder / "mark"))


def said(ended: Ended) -> list[str]:
    """The sentences; torch adds what its connections met."""
    assert "Traceback" not in ended.errors
    return re.findall(r"^(?:error: .*|interrupted)$", ended.errors, re.MULTILINE)


def test_slowness_of_one_ends_nobody_and_a_failure_of_one_ends_both(tmp_path: Path) -> None:
    """Half as long again as one may stand still; each process gets its own result."""
    ended = together(tmp_path, "slow")
    assert [one.output for one in ended] == [f"from process {rank}\n2 processes went on\n" for rank in (0, 1)]
    assert [one.code for one in ended] == [EXIT_INPUT_ERROR, EXIT_PEER_LOST]
    assert said(ended[0]) == [f"error: {SENTENCE}"]
    assert said(ended[1]) == [f"error: process 0 failed: {SENTENCE[:-1]}; process 1 ends with it."]


def test_ctrl_c_ends_both_at_once(tmp_path: Path) -> None:
    ended = together(tmp_path, "interrupt")
    seconds = time.time() - float((tmp_path / "mark").read_text())
    assert [one.code for one in ended] == [EXIT_PEER_LOST, 130]
    assert said(ended[1]) == ["interrupted"]
    assert said(ended[0]) == ["error: process 1 failed: interrupted; process 0 ends with it."]
    assert seconds < AT_ONCE_S


def test_alone_it_is_a_call() -> None:
    """In the same thread, so that Ctrl-C reaches it; and what it raises is raised."""
    world = World(0, 1, torch.device("cpu"))
    assert world.patiently(threading.current_thread, "looking") is threading.main_thread()
    with pytest.raises(InputError, match=SENTENCE):
        world.patiently(patient_process.fail, "failing")
