"""Run several commands at once, as a launcher does. All have ended when the call returns."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 600.0  # importing torch took two minutes on two cores, with fifteen processes waiting
GRACE_S = 120.0  # after one process failed, its peers may wait for it forever
_LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_", "SLURM_", "TORCHELASTIC_")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Start:
    """A command, and variables to add to this process's environment without launcher variables."""

    command: list[str]
    variables: dict[str, str]

    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHERS)}
        ours = {name: value for name, value in ours.items() if name not in _TORCHRUN}
        return {"OMP_NUM_THREADS": "1"} | ours | self.variables


@dataclass(frozen=True)
class Ended:
    """The result of a command. `code` is None if it still ran when the waiting ended."""

    code: int | None
    output: str
    errors: str


def run_together(folder: Path, starts: list[Start], timeout_s: float = TIMEOUT_S) -> list[Ended]:
    """Start all commands and wait for them. Their output goes to files in `folder`, so that no full pipe stops one."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, start in enumerate(starts):
            with (folder / f"{number}.out").open("wb") as output, (folder / f"{number}.err").open("wb") as errors:
                processes.append(subprocess.Popen(start.command, stdout=output, stderr=errors, env=start.environment()))
        codes = _wait(processes, timeout_s)
    finally:
        for process in processes:
            _end(process)
    texts = [[(folder / f"{n}.{kind}").read_text() for kind in ("out", "err")] for n in range(len(starts))]
    return [Ended(code, output, errors) for code, (output, errors) in zip(codes, texts, strict=True)]


def _wait(processes: list[subprocess.Popen[bytes]], timeout_s: float) -> list[int | None]:
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [process.poll() for process in processes]
        if any(codes):
            deadline = min(deadline, time.monotonic() + GRACE_S)
        if None not in codes or time.monotonic() > deadline:
            return codes
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # a launcher then ends its processes; a killed one leaves them behind
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
