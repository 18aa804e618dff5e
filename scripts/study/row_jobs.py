"""Jobs of a study: each runs some commands once and writes one JSON file."""

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from vdvae_lr.evaluation.document import read_evaluation
from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.whole_file import write_whole

_REPORT_S = 60.0
"""A job that runs says so often how far it is."""


@dataclass(frozen=True)
class Job:
    """One row of a study."""

    label: str
    """Its name in messages, and that of its log and lock."""
    result: Path
    """The JSON file that it writes. A job that has one is not run again."""
    commands: Sequence[Sequence[str]]
    """Arguments of Python, command by command."""
    read: Callable[[], dict[str, Any]]
    """What the commands measured; plain JSON."""


def run_jobs(jobs: Iterable[Job], work: Path, at_once: int) -> int:
    """Run the jobs that have no result yet, `at_once` at a time; return how many failed.

    Args:
        jobs: in the order in which they start.
        work: folder of logs and locks. Several programs may share it: only one of them runs each job.
        at_once: how many run side by side, each on OMP_NUM_THREADS threads (1 if that is not set).
    """
    (work / "logs").mkdir(parents=True, exist_ok=True)

    def attempt(job: Job) -> bool:
        try:
            _run(job, work)
        except subprocess.CalledProcessError as error:
            print(f"FAILED {job.label}: see {work}/logs ({error})", flush=True)
            return False
        return True

    with ThreadPoolExecutor(at_once) as pool:
        return sum(not good for good in pool.map(attempt, list(jobs)))


def _run(job: Job, work: Path) -> None:
    try:
        with FileLock(work / "logs" / f"{job.label}.lock", timeout=0):
            if job.result.exists():
                return
            seconds = [timed(job.label, [sys.executable, *command], work) for command in job.commands]
            result = job.read() | {"seconds": [round(each) for each in seconds], "versions": versions()}
            write_whole(job.result, (json.dumps(result, indent=1) + "\n").encode())
            print(
                f"{time.strftime('%H:%M:%S')} {job.label}: {' + '.join(f'{each:.0f}' for each in seconds)} s",
                flush=True,
            )
    except Timeout:
        pass  # another program runs this job


def timed(label: str, command: Sequence[str], work: Path) -> float:
    """Run a command in the checkout; its output goes into the job's log. Return the seconds that it took."""
    start = time.monotonic()
    with (work / "logs" / f"{label}.log").open("a", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT) as process:
            while _still_runs(process):
                print(f"{time.strftime('%H:%M:%S')} {label}: {_last_line(Path(log.name))}", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return time.monotonic() - start


def _still_runs(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a while; whether the process then still runs."""
    try:
        process.wait(_REPORT_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _last_line(log: Path) -> str:
    """The last line of a log, which says how far the job is."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def measured(path: Path) -> dict[str, Any]:
    """What an evaluation measured, as plain JSON: totals with errors, parts by group, the numbers of images and pixels.

    What is not finite is left out.
    """
    evaluation = read_evaluation(path)
    found = {quantity.key: quantity.total for quantity in evaluation.quantities if quantity.total is not None}
    totals = {key: total for key, total in found.items() if math.isfinite(total.value)}
    return {
        "examples": evaluation.examples,
        "measured": {
            key: {"value": total.value, "standard_error": total.standard_error} for key, total in totals.items()
        },
        "by_group": {q.key: [part.value for part in q.groups] for q in evaluation.quantities if q.key in totals},
    }


def versions() -> dict[str, str]:
    """Of Python and torch, and the commit of the checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {"python": platform.python_version(), "torch": torch.__version__, "commit": done.stdout.strip()}
