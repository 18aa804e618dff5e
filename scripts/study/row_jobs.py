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

_GEOMETRY = ("singular_values", "local_bi_lipschitz", "least_kl", "rate")
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
            began = _Sessions(work / "logs" / f"{job.label}.json", len(job.commands))
            for number, command in enumerate(job.commands):
                timed(job.label, [sys.executable, *command], work, began.clock(number))
            result = job.read() | {"seconds": [round(each) for each in began.seconds], "versions": began.versions}
            write_whole(job.result, (json.dumps(result, indent=1) + "\n").encode())
            spent = " + ".join(f"{each:.0f}" for each in began.seconds)
            print(f"{time.strftime('%H:%M:%S')} {job.label}: {spent} s", flush=True)
    except Timeout:
        pass  # another program runs this job


class _Sessions:
    """What a job began with and how long its commands ran, over all the times that it was started.

    Attributes:
        versions: as the first time.
        seconds: by command.
    """

    def __init__(self, path: Path, commands: int) -> None:
        self._path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.versions: dict[str, str] = kept.get("versions") or versions()
        self.seconds: list[float] = kept.get("seconds") or [0.0] * commands

    def clock(self, command: int) -> Callable[[float], None]:
        """What keeps the time of a command; it takes the seconds since it was last started."""
        before = self.seconds[command]

        def note(seconds: float) -> None:
            self.seconds[command] = before + seconds
            write_whole(self._path, json.dumps({"versions": self.versions, "seconds": self.seconds}).encode())

        return note


def timed(label: str, command: Sequence[str], work: Path, note: Callable[[float], None] = lambda _: None) -> None:
    """Run a command in the checkout; its output goes into the job's log.

    `note` gets the seconds so far, once a minute and at the end.
    """
    start = time.monotonic()
    with (work / "logs" / f"{label}.log").open("a", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT) as process:
            while _still_runs(process):
                note(time.monotonic() - start)
                print(f"{time.strftime('%H:%M:%S')} {label}: {_last_line(Path(log.name))}", flush=True)
    note(time.monotonic() - start)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))


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

    `geometry` has the images whose Jacobian was taken, with latents in σ_p: its leading singular values, L(z), and the
    least KL and the rate in nats/dim.
    What is not finite is left out.
    """
    evaluation = read_evaluation(path)
    found = {quantity.key: quantity.total for quantity in evaluation.quantities if quantity.total is not None}
    totals = {key: total for key, total in found.items() if math.isfinite(total.value)}
    groups = {each.key: [part.value for part in each.groups] for each in evaluation.quantities if each.groups}
    spectra = evaluation.details.get("spectra", ())
    whole = [each for each in spectra if (each["unit"], each["group"], each["of"]) == ("prior_scale", None, "images")]
    return {
        "examples": evaluation.examples,
        "measured": {
            key: {"value": total.value, "standard_error": total.standard_error} for key, total in totals.items()
        },
        "by_group": {key: values for key, values in groups.items() if all(map(math.isfinite, values))},
        "geometry": [{key: each[key] for key in _GEOMETRY} for each in whole],
    }


def versions() -> dict[str, str]:
    """Of Python and torch, and the commit of the checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {"python": platform.python_version(), "torch": torch.__version__, "commit": done.stdout.strip()}
