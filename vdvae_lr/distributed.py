"""Which process this is, which device it uses, and what the processes say to each other.

One process is an ordinary case: a `World` of size 1 reduces and waits without doing anything. Rank, size and rendezvous
come from the launcher: torchrun's environment, an MPI launcher (through mpi4py, needed only there), or SLURM's srun.
This is the only module that knows launchers.
"""

import math
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import NoReturn, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not listed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.peers import PeerWatch

T = TypeVar("T")

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_MPIEXEC = ("OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")  # Open MPI's; MPICH's and Intel MPI's
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_PMI_SIZE = "PMI_SIZE"  # also set by srun, where SLURM's default is PMI-2
_MEETING_TIMEOUT = timedelta(minutes=10)  # nodes of one job may start minutes apart
_SLURM_STEP_SIZE = "SLURM_STEP_NUM_TASKS"
_COLLECTIVE_TIMEOUT = timedelta(days=1)  # evaluation works for hours between meetings; the watch sees who is lost
_MEETING_EVERY_S = 1.0  # while something takes long
_AFTER_THE_WATCH = timedelta(minutes=5)  # torch's own timeout names no culprit: the watch shall speak first


@dataclass(frozen=True)
class Place:
    """Where the launcher put this process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    relayed: bool = False
    """The launcher passes the output on, as if to a terminal, wherever it goes in the end."""


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    relayed: bool = False
    """Output goes through the launcher: no progress bar, for it may end in a file."""
    watch: PeerWatch | None = None
    """Ends this process when another one is lost; None where there is no other."""

    def at(self, doing: str) -> None:
        """Say what this process does from now on, for the others to know should it stand still."""
        if self.watch is not None:
            self.watch.at(doing)

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

    def on_main(self, action: Callable[[], T]) -> T | None:
        """Do something on the main process while the others wait; where it fails there, they end with it."""
        failed = True
        try:
            result = action() if self.is_main else None
            failed = False
        finally:
            failed_somewhere = self.highest(failed)
        if failed_somewhere:
            self.end_with_failed()
        return result

    def end_with_failed(self) -> NoReturn:
        """End this process because another one failed, which says why; leaving sooner would cut that off."""
        if self.watch is not None:
            self.watch.await_verdict()  # ends this process with the other one's cause
        raise SystemExit(EXIT_INPUT_ERROR)

    def patiently(self, action: Callable[[], T], doing: str) -> T:
        """Do something that may take long, such as a download, on every process; where it fails on one, all end.

        It is done in a thread, and the processes go on meeting: none counts as standing still, and none waits in a
        reduction for longer than a second or so.
        """
        if self.size == 1:
            return action()
        work: Future[T] = Future()
        Thread(target=_settle, args=(work, action), daemon=True).start()  # Ctrl-C need not wait for it
        while True:
            wait([work], timeout=_MEETING_EVERY_S)
            self.at(f"{doing}, since {time.strftime('%X')}" if not work.done() else f"waiting for others {doing}")
            failed = work.done() and work.exception() is not None
            if failed or not self.highest(not work.done()):
                return work.result()  # a failure here ends the others through the watch

    def highest(self, number: int) -> int:
        """The largest of all processes' numbers; waits for the device."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number, dtype=torch.int64, device=self.device)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)

    def agree(self, number: int) -> bool:
        """Whether all processes have the same number; waits for the device."""
        return self.highest(number) == -self.highest(-number)

    def total(self, number: int) -> int:
        """The sum of all processes' numbers; waits for the device."""
        if self.size == 1:
            return number
        return int(self.all_reduce_sum_(torch.tensor(number, dtype=torch.int64, device=self.device)))


@contextmanager
def joined_world(device: str = "auto", stuck_after_s: float = math.inf) -> Iterator[World]:
    """`start_world`, and `stop_world` at the end.

    When this process fails, its peers may wait for it in a reduction they never leave: it says why, tells them, and
    ends. Where it fails because a connection broke, a peer failed first, and this process ends with what the peer said.
    """
    world = None
    try:
        world = start_world(device, stuck_after_s)
        yield world
    except Exception as error:
        if world is None or world.watch is None:
            raise
        _end_with_peers(world.watch, error)
    except KeyboardInterrupt:
        if world is not None and world.watch is not None:
            world.watch.fail("interrupted", linger=False)
        raise
    stop_world(world)


def _end_with_peers(watch: PeerWatch, error: Exception) -> NoReturn:
    """Speak before telling the others: with the first that ends, a launcher ends all."""
    if _is_broken_connection(error):
        watch.await_verdict()
    if isinstance(error, InputError):
        code, cause = EXIT_INPUT_ERROR, str(error).removesuffix(".")
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        code, cause = 1, traceback.format_exception_only(error)[-1].strip()
        traceback.print_exception(error)
        sys.stderr.flush()
    watch.fail(cause)
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None:
        mpi.COMM_WORLD.Abort(code)  # its finalisation would wait for processes that are in a reduction
    raise SystemExit(code)


def _settle(work: "Future[T]", action: Callable[[], T]) -> None:
    try:
        work.set_result(action())
    except BaseException as error:
        work.set_exception(error)


def _is_broken_connection(error: Exception) -> bool:
    """Whether a reduction failed because a peer is gone; gloo raises plain RuntimeErrors that name its source file."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def start_world(device: str = "auto", stuck_after_s: float = math.inf) -> World:
    """Join the processes the launcher started, and pick this one's device ("auto", "cpu", "cuda").

    Args:
        device: of this process.
        stuck_after_s: with several processes, end them all when one does not move for so long; infinite: never.

    Raises:
        InputError: half a launcher's environment, no mpi4py under mpiexec, fewer cards than processes on this machine,
        or processes that do not find each other.
    """
    place = find_place(os.environ)
    chosen = _device(device, place)
    if place.size == 1:
        return World(place.rank, place.size, chosen, place.relayed)
    store = _meet(place)
    limited = stuck_after_s < math.inf
    distributed.init_process_group(
        "nccl" if chosen.type == "cuda" else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.size,
        timeout=timedelta(seconds=stuck_after_s) + _AFTER_THE_WATCH if limited else _COLLECTIVE_TIMEOUT,
        device_id=chosen if chosen.type == "cuda" else None,
    )
    # a connection of its own: the group's is locked while a reduction waits for a peer
    own = TCPStore(place.address, place.port, is_master=False, timeout=_MEETING_TIMEOUT, wait_for_workers=False)
    start = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), own)  # what ended one is past
    watch = PeerWatch(start, place.rank, place.size, stuck_after_s)
    watch.start()
    return World(place.rank, place.size, chosen, place.relayed, watch)


def _meet(place: Place) -> Store:
    try:
        url = f"tcp://{place.address}:{place.port}"
        store, _, _ = next(rendezvous(url, place.rank, place.size, timeout=_MEETING_TIMEOUT))
    except distributed.DistError as error:
        raise InputError(
            f"process {place.rank} of {place.size} did not find the others at {place.address}:{place.port} "
            f"({str(error).splitlines()[0]}); check that all were started, that the nodes reach each other, and that "
            "the port is free."
        ) from None
    return store


def stop_world(world: World | None = None) -> None:
    """Leave the process group, if this process joined one, when the others leave it too."""
    if not distributed.is_initialized():
        return
    if world is not None and world.watch is not None:
        world.watch.ending()
        distributed.barrier()  # the store must outlast the last look into it
        world.watch.stop()
    distributed.destroy_process_group()


def find_place(environment: Mapping[str, str]) -> Place:
    """Read the launcher's environment: torchrun first, then MPI, then srun; none of them means one process."""
    given = [name for name in _TORCHRUN if name in environment]
    if "RANK" in given or "LOCAL_RANK" in given:
        if len(given) < len(_TORCHRUN):
            missing = ", ".join(sorted(set(_TORCHRUN) - set(given)))
            some = ", ".join(given)
            raise InputError(f"the environment sets {some} but not {missing}; start with torchrun, or unset {some}.")
        rank, size, local_rank, port = (
            _number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
        )
        return Place(rank, size, local_rank, environment["MASTER_ADDR"], port)
    in_step = "SLURM_STEP_ID" in environment
    if any(name in environment for name in _MPIEXEC) or (_PMI_SIZE in environment and not in_step):
        return _place_from_mpi(environment)
    return _place_from_slurm(environment) if in_step else Place()


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise InputError(
            f"the environment sets {name} to '{environment[name]}', which is no number; start with a launcher, or "
            "unset it."
        ) from None


def _place_from_mpi(environment: Mapping[str, str]) -> Place:
    try:
        from mpi4py import MPI
    except ImportError:
        raise InputError(
            "started by an MPI launcher, but mpi4py is not installed; pip install 'vdvae_lr[mpi]'."
        ) from None
    world = MPI.COMM_WORLD
    started = max([_number(environment, name) for name in _MPI_SIZES if name in environment], default=world.size)
    if world.size != started:
        raise InputError(
            f"the MPI launcher started {started} processes, but mpi4py sees {world.size}: it was built for another "
            "MPI; use that one's mpiexec, or build mpi4py for this one."
        )
    if world.size == 1:
        return Place(relayed=True)
    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    address, port = world.bcast((socket.gethostname(), _free_port()) if world.rank == 0 else None, root=0)
    here = local.size == world.size
    return Place(world.rank, world.size, local.rank, "127.0.0.1" if here else address, port, relayed=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _place_from_slurm(environment: Mapping[str, str]) -> Place:
    size_name = _SLURM_STEP_SIZE if _SLURM_STEP_SIZE in environment else "SLURM_NTASKS"  # a step may be part of the job
    names = (size_name, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
    if environment.get(size_name) == "1":
        return Place()
    missing = [name for name in names if name not in environment]
    if missing:
        raise InputError(f"the SLURM environment lacks {', '.join(missing)}; start with srun, or unset SLURM_STEP_ID.")
    size, rank, local_rank, job = (_number(environment, name) for name in names[:4])
    # the same on every node without asking anybody, and below the ports that systems give to outgoing connections
    port = 20_000 + (job * 131 + _number(environment, "SLURM_STEP_ID")) % 12_000
    return Place(rank, size, local_rank, first_host(environment["SLURM_STEP_NODELIST"]), port)


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
    card = 0 if _shows_one_card(os.environ) else place.local_rank
    if card >= cards:
        raise InputError(
            f"process {place.local_rank} of this machine has no card of its own: {cards} card(s) are visible; "
            f"start at most {cards} process(es) a machine."
        )
    torch.cuda.set_device(card)
    return torch.device("cuda", card)


def _shows_one_card(environment: Mapping[str, str]) -> bool:
    """Whether the launcher shows each process a card of its own, as srun with --gpus-per-task does."""
    return "," not in environment.get("CUDA_VISIBLE_DEVICES", ",")
