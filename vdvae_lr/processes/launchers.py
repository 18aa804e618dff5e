"""What a launcher's environment says: torchrun's, an MPI launcher's (through mpi4py, needed only there), or srun's.

This is the only module that knows launchers.
"""

import ctypes
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import Any

from vdvae_lr.errors import InputError

_TORCHRUN_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
_TORCHRUN = (*_TORCHRUN_NUMBERS, "MASTER_ADDR")
_MPIEXEC = ("OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")  # Open MPI's; MPICH's and Intel MPI's
_PMI_SIZE = "PMI_SIZE"  # also set by srun, where SLURM's default is PMI-2
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", _PMI_SIZE)
_OPEN_MPI_SERVER = "PMIX_SERVER_URI41"  # NAME;tcp4://ADDRESS:PORT, where mpiexec listens while it lives
_MPI_NOTICE_S = 6.0
_SLURM_STEP = "SLURM_STEP_ID"
_SLURM_STEP_SIZE = "SLURM_STEP_NUM_TASKS"
_LAST_PORT = 65_535


@dataclass(frozen=True)
class Place:
    """Where the launcher put this process.

    Raises:
        InputError: the numbers or the address are impossible.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    relayed: bool = False
    """The launcher passes the output on. It looks like a terminal to this process, wherever it goes in the end."""
    launcher_hosts: bool = False
    """The launcher listens at the address; otherwise process 0 does."""
    remedy: str = "start with a launcher"
    """What to do if these variables are not from a launcher that started every process."""

    def __post_init__(self) -> None:
        """Refuse what no launcher says."""
        if not 0 <= self.rank < self.size or self.local_rank < 0:
            raise InputError(
                f"the environment says that this is process {self.rank} of {self.size}, number {self.local_rank} on "
                f"its machine, and counts from 0; {self.remedy}."
            )
        if self.size > 1 and not (self.address and 0 < self.port <= _LAST_PORT):
            raise InputError(
                f"the environment says that the processes meet at '{self.address}:{self.port}', which is no address; "
                f"{self.remedy}."
            )


def find_place(environment: Mapping[str, str]) -> Place:
    """Read the launcher's environment: torchrun first, then MPI, then srun. Without any there is one process.

    Raises:
        InputError: variables are missing or impossible, or mpi4py is missing where it is needed.
    """
    if "RANK" in environment or "LOCAL_RANK" in environment or environment.get("WORLD_SIZE", "1") != "1":
        return _place_from_torchrun(environment)  # MASTER_ADDR alone proves nothing: other programs set it, too
    in_step = _SLURM_STEP in environment
    if any(name in environment for name in _MPIEXEC) or (_PMI_SIZE in environment and not in_step):
        return _place_from_mpi(environment)
    return _place_from_slurm(environment) if in_step else Place()


def _place_from_torchrun(environment: Mapping[str, str]) -> Place:
    given = [name for name in _TORCHRUN if name in environment]
    some = ", ".join(given)
    if len(given) < len(_TORCHRUN):
        missing = ", ".join(sorted(set(_TORCHRUN) - set(given)))
        raise InputError(f"the environment sets {some} but not {missing}; start with torchrun, or unset {some}.")
    rank, size, local_rank, port = (_number(environment, name) for name in _TORCHRUN_NUMBERS)
    launcher_hosts = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    remedy = "start with torchrun, or, for one process alone, unset RANK, WORLD_SIZE and LOCAL_RANK"
    address = environment["MASTER_ADDR"]
    return Place(rank, size, local_rank, address, port, launcher_hosts=launcher_hosts, remedy=remedy)


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise InputError(
            f"the environment sets {name} to '{environment[name]}', which is no number; start with a launcher, or "
            "unset it."
        ) from None


def _place_from_mpi(environment: Mapping[str, str]) -> Place:
    sizes = {name: _number(environment, name) for name in _MPI_SIZES if name in environment}
    if sizes and set(sizes.values()) == {1}:
        return Place(relayed=True)  # does not start MPI: a launcher that has ended leaves its variables in a shell
    alone = f"for one process alone, unset {' and '.join(sizes) or 'MPI_LOCALNRANKS'}"
    if _open_mpi_ended(environment):
        raise InputError(
            f"the environment is that of an mpiexec that has ended; start with mpiexec again, or, {alone}."
        )
    remedy = f"start with mpiexec, or, {alone}"
    try:
        MPI = _initialised_mpi(f"This process has waited {_MPI_NOTICE_S:g} s for the others. Without them: {remedy}.")
    except ImportError:
        raise InputError(
            f"started by an MPI launcher, but mpi4py is not installed; pip install 'vdvae_lr[mpi]', or, {alone}."
        ) from None
    world = MPI.COMM_WORLD
    started = max(sizes.values(), default=world.size)
    if world.size != started:
        raise InputError(
            f"the MPI launcher started {started} processes, but mpi4py sees {world.size}: it was built for another "
            f"MPI; use that one's mpiexec, or build mpi4py for this one, or, {alone}."
        )
    if world.size == 1:
        return Place(relayed=True)
    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    address, port = world.bcast((socket.gethostname(), _free_port()) if world.rank == 0 else None, root=0)
    if local.size == world.size:  # all are on one machine
        address = "127.0.0.1"
    return Place(world.rank, world.size, local.rank, address, port, relayed=True, remedy=remedy)


def _initialised_mpi(notice: str) -> Any:
    """Start MPI and return mpi4py's module for it. Prints `notice` if MPI waits for other processes.

    mpi4py's own call of MPI_Init_thread lets no other thread run while it waits. A call by ctypes does.
    """
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI

    if not MPI.Is_initialized():
        speaker = Timer(_MPI_NOTICE_S, lambda: print(notice, file=sys.stderr, flush=True))
        speaker.daemon = True
        speaker.start()
        library = ctypes.CDLL(MPI.__file__)
        if hasattr(library, "MPI_Init_thread"):
            library.MPI_Init_thread(None, None, MPI.THREAD_MULTIPLE, ctypes.byref(ctypes.c_int()))
        else:
            MPI.Init_thread()
        speaker.cancel()
    return MPI


def _open_mpi_ended(environment: Mapping[str, str]) -> bool:
    """Whether nobody listens at the address of Open MPI's launcher. MPI would crash without a message."""
    server = re.search(r"tcp4://(?P<host>[\d.]+):(?P<port>\d+)", environment.get(_OPEN_MPI_SERVER, ""))
    if server is None:
        return False
    try:
        with suppress(TimeoutError), socket.create_connection((server["host"], int(server["port"])), timeout=5):
            pass
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _place_from_slurm(environment: Mapping[str, str]) -> Place:
    size_name = _SLURM_STEP_SIZE if _SLURM_STEP_SIZE in environment else "SLURM_NTASKS"  # a step may be part of the job
    names = (size_name, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
    if environment.get(size_name) == "1":
        return Place()
    remedy = f"start with srun, or, for one process alone, unset {_SLURM_STEP}"
    missing = [name for name in names if name not in environment]
    if missing:
        raise InputError(f"the SLURM environment lacks {', '.join(missing)}; {remedy}.")
    size, rank, local_rank, job = (_number(environment, name) for name in names[:4])
    # Every node computes the same port without asking. It lies below the ports of outgoing connections.
    port = 20_000 + (job * 131 + _number(environment, _SLURM_STEP)) % 12_000
    address = first_host(environment["SLURM_STEP_NODELIST"])
    if _PMI_SIZE in environment:
        remedy += f" and {_PMI_SIZE}"
    return Place(rank, size, local_rank, address, port, remedy=remedy)


def first_host(node_list: str) -> str:
    """The first name in SLURM's compressed list: `gpu[07-09,12]` → `gpu07`."""
    match = re.match(r"(?P<prefix>[^\[,]+)(?:\[(?P<first>\d+))?", node_list)
    return match["prefix"] + (match["first"] or "") if match else node_list


def shows_one_card(environment: Mapping[str, str]) -> bool:
    """Whether the launcher shows each process only its own card, as srun with --gpus-per-task does."""
    return "," not in environment.get("CUDA_VISIBLE_DEVICES", ",")


def restart_count(environment: Mapping[str, str]) -> str:
    """How often torchrun has started the processes again; other launchers never do."""
    return environment.get("TORCHELASTIC_RESTART_COUNT", "0")
