"""Programs that replace those of a cluster, and ways to run shell scripts with them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from started_processes import Start

SCRIPTS = Path(__file__).parents[2] / "scripts" / "cluster"
_STARTED: list[subprocess.Popen[str]] = []
TIMEOUT_S = 120.0  # for work of a second; more than a busy machine needs


def write_program(path: Path, body: str) -> Path:
    """Write an executable bash script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}")
    path.chmod(0o755)
    return path


def recording(path: Path, record: Path, then: str = "") -> Path:
    """Write a program that adds its arguments to `record`, one a line, and then runs `then`."""
    return write_program(path, f"printf '%s\\n' \"$@\" >{record}\n{then}\n")


def environment(programs: Path, **variables: str) -> dict[str, str]:
    """The environment of this process without launcher variables, with `programs` first on PATH, and `variables`."""
    ours = Start([], {}).environment()
    return ours | {"PATH": f"{programs}:{ours['PATH']}", "HOME": str(programs)} | variables


def run_script(script: str, *words: str, programs: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of scripts/ to its end, in an empty folder."""
    return subprocess.run(
        [SCRIPTS / script, *words],
        env=environment(programs, **variables),
        cwd=programs,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def start_script(script: str, *words: str, programs: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a script of scripts/."""
    return start(str(SCRIPTS / script), *words, programs=programs, **variables)


def start(*command: str, programs: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a program. After the test, `end_all` ends it if it still runs."""
    process = subprocess.Popen(
        command,
        env=environment(programs, **variables),
        cwd=programs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _STARTED.append(process)
    return process


def end_all() -> None:
    """End all started programs that still run, with their children."""
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"never: {what}")
        time.sleep(0.05)


def ended(process: subprocess.Popen[str], told: signal.Signals | None = None) -> int:
    """Send the signal `told`, if there is one, and wait for the exit code."""
    if told is not None:
        process.send_signal(told)
    process.communicate(timeout=TIMEOUT_S)
    return process.returncode
