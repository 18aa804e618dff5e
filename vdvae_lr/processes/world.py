"""Which process this is, which device it uses, and how the processes of a run work together.

One process is an ordinary case: a `World` of size 1 reduces and waits without doing anything. `launchers.py` finds
rank, size and address, `meeting.py` brings the processes together, `watch.py` notices when one is lost.
"""

import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed.nn.functional  # now: imported later, its default arguments would keep the group alive
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore

from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.processes.failures import EXIT_DEFECT, explanation, report
from vdvae_lr.processes.launchers import Place, find_place, restart_count, shows_one_card
from vdvae_lr.processes.meeting import begun, connected, joined_store, wait_for_all
from vdvae_lr.processes.watch import PeerWatch

T = TypeVar("T")

_COLLECTIVE_TIMEOUT = timedelta(days=1)  # an evaluation works for hours between reductions; the watch notices losses
_MEETING_EVERY_S = 1.0  # while something takes long
_AFTER_THE_WATCH = timedelta(minutes=5)  # torch's own timeout does not say who is stuck, so the watch comes first


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    relayed: bool = False
    """The launcher passes the output on. It may end in a file, so there is no progress bar."""
    watch: PeerWatch | None = None
    """Ends this process when another one is lost; None if there is no other."""

    def at(self, doing: str) -> None:
        """Say what this process does from now on. If it then stands still, the others can name it."""
        if self.watch is not None:
            self.watch.at(doing)

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files and prints to the terminal."""
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
        """Do something on the main process while the others wait. If it fails, they end, too."""
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
        """End this process because another one failed. Waits first, so that the other one can say why."""
        if self.watch is not None:
            self.watch.await_verdict()  # ends this process with the other one's sentence
        raise SystemExit(EXIT_INPUT_ERROR)

    def patiently(self, action: Callable[[], T], doing: str) -> T:
        """Do something that may take long, such as a download, on every process. If it fails on one, all end.

        A thread does it, while the processes keep meeting. So none of them counts as standing still, and none waits in
        a reduction for longer than about a second.
        """
        if self.size == 1:
            return action()
        work = begun(action)
        while True:
            wait([work], timeout=_MEETING_EVERY_S)
            self.at(f"{doing}, since {time.strftime('%X')}" if not work.done() else f"waiting for others {doing}")
            failed = work.done() and work.exception() is not None
            if failed or not self.highest(not work.done()):
                return work.result()  # raises a failure, which ends the others through the watch

    def main_first(self, action: Callable[[], T], doing: str) -> T:
        """`patiently` on the main process, and then on the others.

        On a shared file system the others then find what it fetched. Elsewhere one process of each machine fetches
        while the rest wait. `action` returns something true.
        """
        found = self.patiently(lambda: action() if self.is_main else None, f"{doing} on process 0")
        return self.patiently(lambda: found or action(), doing)

    def highest(self, number: int) -> int:
        """The largest of all processes' numbers. Waits for the device."""
        return self._reduced(number, distributed.ReduceOp.MAX)

    def agree(self, number: int) -> bool:
        """Whether all processes have the same number. Waits for the device."""
        return self.highest(number) == -self.highest(-number)

    def total(self, number: int) -> int:
        """The sum of all processes' numbers. Waits for the device."""
        return self._reduced(number, distributed.ReduceOp.SUM)

    def _reduced(self, number: int, operation: distributed.ReduceOp.RedOpType) -> int:
        if self.size == 1:
            return number
        numbers = torch.tensor(number, dtype=torch.int64, device=self.device)
        distributed.all_reduce(numbers, operation)
        return int(numbers)


@contextmanager
def joined_world(device: str = "auto", stuck_after_s: float = math.inf) -> Iterator[World]:
    """`start_world`, and at the end leave the other processes together with them."""
    world = start_world(device, stuck_after_s)
    with _ending_together(world.watch):
        yield world
    if world.watch is not None:
        world.watch.ending()
        distributed.barrier()  # the store must exist until all have looked into it for the last time
        world.watch.stop()
        distributed.destroy_process_group()


@contextmanager
def _ending_together(watch: PeerWatch | None) -> Iterator[None]:
    """If this process fails inside, print why, tell the others, and end: they may wait for it in a reduction for ever.

    If it fails because a connection broke, another process failed first. Then this one ends with the other's sentence.
    """
    try:
        yield
    except Exception as error:
        if watch is None:
            raise
        _end_with_peers(watch, error)
    except KeyboardInterrupt:
        if watch is not None:
            watch.fail("interrupted", linger=False)
        raise


def _end_with_peers(watch: PeerWatch, error: Exception) -> NoReturn:
    """Print the error before telling the others: when the first process ends, a launcher ends all."""
    if _is_broken_connection(error):
        watch.await_verdict()
    code = report(error)
    if code is None:
        code = EXIT_DEFECT
        traceback.print_exception(error)
        sys.stderr.flush()
    explained = explanation(error)
    watch.fail(
        explained.sentence.removesuffix(".") if explained else traceback.format_exception_only(error)[-1].strip()
    )
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None:
        mpi.COMM_WORLD.Abort(code)  # finalising MPI would wait for processes that are in a reduction
    raise SystemExit(code)


def _is_broken_connection(error: Exception) -> bool:
    """Whether a reduction failed because a process is gone. gloo raises RuntimeErrors that name its source file."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def start_world(device: str = "auto", stuck_after_s: float = math.inf) -> World:
    """Join the processes that the launcher started, and choose this one's device.

    Args:
        device: "cpu", "cuda", or "auto" for cuda if there is a card.
        stuck_after_s: if one of several processes makes no progress for so long, all end; infinite: never.

    Raises:
        InputError: the launcher's environment is incomplete, mpi4py is missing under mpiexec, this machine has fewer
            cards than processes, or the processes do not find each other.
    """
    place = find_place(os.environ)
    chosen = _device(device, place)
    if place.size == 1:
        return World(place.rank, place.size, chosen, place.relayed)
    restarts = restart_count(os.environ)  # keeps the failure of an earlier start out of sight
    store = PrefixStore(restarts, connected(place))
    # The watch has its own connection: the group's is locked while a reduction waits for another process.
    watch = PeerWatch(PrefixStore(restarts, joined_store(place)), place.rank, place.size, stuck_after_s)
    watch.start()
    with _ending_together(watch):
        wait_for_all(place, watch)
        limited = stuck_after_s < math.inf
        distributed.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(seconds=stuck_after_s) + _AFTER_THE_WATCH if limited else _COLLECTIVE_TIMEOUT,
            device_id=chosen if chosen.type == "cuda" else None,
        )
    return World(place.rank, place.size, chosen, place.relayed, watch)


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
    card = 0 if shows_one_card(os.environ) else place.local_rank
    if card >= cards:
        raise InputError(
            f"process {place.local_rank} of this machine has no card of its own: {cards} card(s) are visible; "
            f"start at most {cards} process(es) a machine."
        )
    torch.cuda.set_device(card)
    return torch.device("cuda", card)
