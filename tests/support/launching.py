"""Start train.py, or a script like it, as each launcher does; read what the runs write."""

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from started_processes import TIMEOUT_S, Ended, Start, run_together
from training_runs import TINY

CHECKOUT = Path(__file__).parents[2]
TRAIN = CHECKOUT / "train.py"
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # a container may have no other user


def train_command(images: Path, save_dir: Path, script: Path = TRAIN, **changes: Any) -> list[str]:
    """The arguments of `python` that start a tiny run named "run" in `save_dir`."""
    values = TINY | {"data_root": str(images), "save_dir": str(save_dir), "desc": "run"} | changes
    flags = [f"--{name}" for name, value in values.items() if value is True]
    valued = {name: value for name, value in values.items() if not isinstance(value, bool)}
    return [str(script), *flags, *(word for name, value in valued.items() for word in (f"--{name}", str(value)))]


def by_itself(train: list[str], variables: Mapping[str, str]) -> list[Start]:
    return [Start([sys.executable, *train], dict(variables))]


def by_torchrun(train: list[str], variables: Mapping[str, str]) -> list[Start]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [Start([*launcher, *train], dict(variables))]


def by_mpiexec(train: list[str], variables: Mapping[str, str]) -> list[Start]:
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("no mpiexec beside this Python: pip install 'vdvae_lr[mpi]'")
    return [Start([str(mpiexec), "-n", "2", "--oversubscribe", sys.executable, *train], AS_ROOT | variables)]


def by_srun(train: list[str], variables: Mapping[str, str]) -> list[Start]:
    """Two tasks on one node, with the environment that srun gives them."""
    step = {
        "SLURM_JOB_ID": str(free_job()),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
    }
    return [
        Start([sys.executable, *train], step | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} | variables)
        for rank in range(2)
    ]


def free_job() -> int:
    """The number of a job whose port is free, and which the system does not use for outgoing connections."""
    for number in range(os.getpid() % 10_000, 12_000):  # other test workers begin at other numbers
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20_000 + number * 131 % 12_000)):
                return number
    raise AssertionError("no free port")


LAUNCHERS: dict[str, Callable[[list[str], Mapping[str, str]], list[Start]]] = {
    "torchrun": by_torchrun,
    "mpiexec": by_mpiexec,
    "srun": by_srun,
}


def launch(
    launcher: str, folder: Path, train: list[str], timeout_s: float = TIMEOUT_S, **variables: str
) -> list[Ended]:
    """Run two processes ("alone": one) to their end; keep their output in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    start = by_itself if launcher == "alone" else LAUNCHERS[launcher]
    return run_together(folder, start(train, {"PYTHONPATH": str(CHECKOUT)} | variables), timeout_s)


def log_lines(save_dir: Path) -> list[str]:
    return (save_dir / "run" / "log.jsonl").read_text().splitlines()


def log_of(save_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_lines(save_dir)]


def measured_lines(save_dir: Path) -> list[dict[str, Any]]:
    """The lines of the log with measurements: all except those about the images that were found."""
    return [line for line in log_of(save_dir) if line["kind"] != "images"]


def final_tensors(save_dir: Path) -> dict[str, Any]:
    """All tensors of the newest checkpoint: weights, averaged weights, AdamW's state."""
    newest = max((save_dir / "run" / "checkpoints").glob("step-*"))
    return {f"{path.name}/{name}": t for path in newest.glob("*.safetensors") for name, t in load_file(path).items()}
