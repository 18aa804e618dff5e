"""Which process this is, which device it uses, and what the processes say to each other.

One process is an ordinary case: a `World` of size 1 reduces and waits without doing anything. Rank, size and rendezvous
come from the
launcher: torchrun's environment, an MPI launcher (through mpi4py, needed only there), or SLURM's srun. This is the only
module that knows launchers.
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from vdvae_lr.errors import InputError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_MPI_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # the first iteration may wait for another rank's compilation


@dataclass(frozen=True)
class Place:
    """Where the launcher put this process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files and speaks to the person."""
        return self.rank == 0

    def all_reduce_sum_(self, values: Tensor) -> Tensor:
        """Sum `values` over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def all_reduce_mean_(self, values: Tensor) -> Tensor:
        """Average `values` over all processes, in place."""
        return self.all_reduce_sum_(values).div_(self.size) if self.size > 1 else values

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def broadcast_(self, values: Tensor) -> Tensor:
        """Replace `values` by rank 0's, in place."""
        if self.size > 1:
            distributed.broadcast(values, src=0)
        return values


def start_world(device: str = "auto") -> World:
    """Join the processes the launcher started, and pick this one's device ("auto", "cpu", "cuda").

    Raises:
        InputError: half a launcher's environment, no mpi4py under mpiexec, or fewer cards than processes on this
        machine.
    """
    place = find_place(os.environ)
    chosen = _device(device, place)
    if place.size > 1:
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        distributed.init_process_group(
            backend,
            init_method=f"tcp://{place.address}:{place.port}",
            rank=place.rank,
            world_size=place.size,
            timeout=_COLLECTIVE_TIMEOUT,
            device_id=chosen if chosen.type == "cuda" else None,
        )
    return World(place.rank, place.size, chosen)


def stop_world() -> None:
    """Leave the process group, if this process joined one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def find_place(environment: Mapping[str, str]) -> Place:
    """Read the launcher's environment: torchrun first, then MPI, then srun; none of them means one process."""
    given = [name for name in _TORCHRUN if name in environment]
    if "RANK" in given or "LOCAL_RANK" in given:
        if len(given) < len(_TORCHRUN):
            missing = ", ".join(sorted(set(_TORCHRUN) - set(given)))
            raise InputError(
                f"the environment sets {given[0]} but not {missing}; start with torchrun, or unset {given[0]}."
            )
        return Place(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            int(environment["LOCAL_RANK"]),
            environment["MASTER_ADDR"],
            int(environment["MASTER_PORT"]),
        )
    if any(name in environment for name in _MPI_SIZE):
        return _place_from_mpi()
    if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        return _place_from_slurm(environment)
    return Place()


def _place_from_mpi() -> Place:
    try:
        from mpi4py import MPI
    except ImportError:
        raise InputError(
            "started by an MPI launcher, but mpi4py is not installed; pip install 'vdvae_lr[mpi]'."
        ) from None
    world = MPI.COMM_WORLD
    if world.size == 1:
        return Place()
    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    address, port = world.bcast((socket.gethostname(), _free_port()) if world.rank == 0 else None, root=0)
    return Place(world.rank, world.size, local.rank, "127.0.0.1" if local.size == world.size else address, port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _place_from_slurm(environment: Mapping[str, str]) -> Place:
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
    missing = [name for name in names if name not in environment]
    if missing:
        raise InputError(f"the SLURM environment lacks {', '.join(missing)}; start with srun, or unset SLURM_STEP_ID.")
    port = 20_000 + int(environment["SLURM_JOB_ID"]) % 20_000  # the same on every node, without asking anybody
    return Place(
        int(environment["SLURM_PROCID"]),
        int(environment["SLURM_NTASKS"]),
        int(environment["SLURM_LOCALID"]),
        first_host(environment["SLURM_STEP_NODELIST"]),
        port,
    )


def first_host(node_list: str) -> str:
    """The first name in SLURM's compressed list: `gpu[07-09,12]` → `gpu07`."""
    match = re.match(r"(?P<prefix>[^\[,]+)(?:\[(?P<first>\d+))?", node_list)
    return match["prefix"] + (match["first"] or "") if match else node_list


def _device(name: str, place: Place) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise InputError(f"device is '{name}'; choose auto, cpu or cuda.")
    cards = torch.cuda.device_count()
    if cards == 0:
        raise InputError("device is cuda, but no CUDA card is usable here; use --device cpu or check the driver.")
    if place.local_rank >= cards:
        raise InputError(
            f"process {place.local_rank} of this machine has no card of its own: {cards} card(s) are visible; "
            f"start at most {cards} process(es) a machine."
        )
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)
