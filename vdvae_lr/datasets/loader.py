"""Read batches ahead of the model, in worker processes. Shapes: B images, C channels, H W resolution."""

import atexit
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import forkserver, resource_tracker
from threading import Thread
from types import FrameType

import torch
from torch.utils.data import DataLoader, Dataset

from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import ImageSource, Rows
from vdvae_lr.errors import InputError

_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_SILENT_TRACKER = "ignore:resource_tracker:UserWarning"
"""Warning filter for multiprocessing's helper process. When this process is killed, the helper removes its semaphores
and warns about them. That warning would be the last line that a person sees."""
_MOST_READERS_PER_CORE = 8  # each takes about 200 MB; a thousand of them stopped a machine of two cores


@dataclass(frozen=True)
class Batch:
    """One micro-batch of images on the CPU."""

    pixels: torch.Tensor
    """(B, C, H, W) uint8, channels_last in memory."""
    indices: Rows
    """(B,) indices of the examples in their split."""
    micro_batch: int = 0
    """Number of the micro-batch in its step over all ranks; in evaluation, among the batches of this rank."""
    step: int = 0
    """Training step; 0 in evaluation."""
    bad_images: int = 0
    """Number of unreadable images that were replaced by others in this batch."""

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; the DataLoader calls this by name."""
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class _Request:
    step: int
    micro_batch: int
    indices: Rows


class _BatchReader(Dataset[Batch | InputError]):
    """Reads the batch of a request. It returns an `InputError`, since torch would wrap a raised one in a traceback."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source

    def __getitem__(self, request: _Request) -> Batch | InputError:
        replaced_before = self._source.replaced_images
        try:
            images = self._source.read(request.indices)
        except InputError as error:
            return error
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        replaced = self._source.replaced_images - replaced_before
        return Batch(pixels, request.indices, request.micro_batch, request.step, replaced)


def training_batches(
    source: ImageSource, order: TrainingOrder, start_step: int, num_workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """This rank's micro-batches from step `start_step` on, without end. They do not depend on `num_workers`.

    Raises:
        InputError: an image is unreadable and the source does not replace it, a worker process died, or there are far
            too many workers.
    """

    def requests() -> Iterator[_Request]:
        step = start_step
        while True:
            for micro_batch, indices in order.micro_batches(step):
                yield _Request(step, micro_batch, indices)
            step += 1

    return _batches(source, requests(), num_workers, pin_memory)


def evaluation_batches(
    source: ImageSource, shards: Sequence[Rows], num_workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """One batch for each of `shards`, in order. Raises InputError as `training_batches` does."""
    requests = [_Request(0, number, indices) for number, indices in enumerate(shards)]
    return _batches(source, requests, min(num_workers, len(requests)), pin_memory)


def check_readers(num_workers: int, source: ImageSource) -> list[str]:
    """A sentence for the person if there are more readers than cores, else nothing.

    Raises:
        InputError: there are so many that starting them could stop the machine.
    """
    cores = usable_cores()
    if source.in_memory or num_workers <= cores:
        return []
    if num_workers > cores * _MOST_READERS_PER_CORE:
        raise InputError(
            f"num_workers is {num_workers}, but this process may use {cores} core(s) only; give "
            f"{cores * _MOST_READERS_PER_CORE} or fewer (--num_workers {cores} is a good number)."
        )
    return [
        f"{num_workers} processes read images for this one, which may use {cores} core(s) only: they wait for each "
        f"other and take memory; --num_workers {cores} is a good number."
    ]


def usable_cores() -> int:
    """Cores that this process may run on. A container or a launcher may give it only a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(source: ImageSource, requests: Iterable[_Request], num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    check_readers(num_workers, source)
    workers = 0 if source.in_memory else num_workers
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # `check_readers` says it
            loader = DataLoader(
                _BatchReader(source),
                batch_size=None,
                sampler=requests,
                num_workers=workers,
                worker_init_fn=_prepare_reader,
                multiprocessing_context=_reader_context() if workers else None,
                pin_memory=pin_memory,
            )
            items = iter(loader)  # starts the readers
        for item in items:
            if isinstance(item, InputError):
                raise item
            yield item
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if not (workers and _is_lost_worker(error)):
            raise
        raise InputError(
            f"a process that reads images died ({error}): give this machine more memory (or a container more shared "
            "memory), or read in the main process with --num_workers 0"
        ) from error


def _is_lost_worker(error: Exception) -> bool:
    """Whether a worker died. If it dies while it hands over a batch, the connection breaks before torch reports it."""
    if isinstance(error, RuntimeError):  # "Pin memory …": a broken connection ends the thread that pins memory
        return str(error).startswith(("DataLoader worker", "Pin memory thread exited"))
    return not str(error).startswith("Caught ")  # so torch begins the message of an exception inside a worker


def _reader_context() -> multiprocessing.context.ForkServerContext:
    """How readers start: forked from a clean server process that has torch loaded, so that it is quick.

    A plain fork would copy a process that uses CUDA, MPI and threads. Torch would then also report a dead reader from a
    signal handler, which raises in the middle of the training step instead of in `_batches`.
    """
    _kill_readers_at_exit()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    # The server inherits the blocked signals and keeps them blocked. It ends after this process and all readers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    sys.warnoptions.append(_SILENT_TRACKER)
    try:
        resource_tracker.ensure_running()  # the server would start it too, but that start unblocks the signals again
        signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.warnoptions.remove(_SILENT_TRACKER)
    return context


@cache
def _kill_readers_at_exit() -> None:
    """Kill the readers before multiprocessing's own exit handler runs.

    If the program ends while readers run, that handler sends them SIGTERM and joins them. They ignore the first
    SIGTERM, so it would wait for ever.
    """

    def kill_readers() -> None:
        for child in multiprocessing.active_children():
            if child.daemon and isinstance(child, multiprocessing.context.ForkServerProcess):
                child.kill()

    atexit.register(kill_readers)


def _prepare_reader(number: int) -> None:
    """Runs first in each reader, which has to end with the main process and to leave the group's signals to it."""
    Thread(target=_end_with_the_main_process, name="main process watch", daemon=True).start()
    _leave_signals_to_the_main_process()


def _end_with_the_main_process() -> None:
    """End this reader as soon as the main process is gone, however it ended.

    Torch itself checks only whether the parent lives. A reader's parent is the server, which lives until the last
    reader has ended. Without this function both would live for ever, and keep the output of mpiexec open.
    """
    main_process = multiprocessing.parent_process()
    if main_process is not None:
        main_process.join()
        os._exit(1)


def _leave_signals_to_the_main_process() -> None:
    """Ignore SIGINT, SIGUSR1, SIGHUP and the first SIGTERM: terminals, torchrun and SLURM signal all processes.

    The main process answers those signals, and ends the readers. A second SIGTERM comes from the main process or is
    meant for this reader, so it ends the reader.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def first_term(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first_term)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
