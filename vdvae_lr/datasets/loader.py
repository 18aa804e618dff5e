"""Batches read ahead of the model by worker processes. Shapes: B images, C channels, H W resolution."""

import atexit
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import forkserver, resource_tracker
from types import FrameType

import torch
from torch.utils.data import DataLoader, Dataset

from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import ImageSource, Rows
from vdvae_lr.errors import InputError

_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class Batch:
    """One micro-batch of images on the CPU."""

    pixels: torch.Tensor
    """(B, C, H, W) uint8, channels_last in memory."""
    indices: Rows
    """(B,) which examples of the source these are."""
    micro_batch: int
    """Number of the micro-batch in its step over all ranks; in evaluation, in this rank's own sequence."""
    step: int
    """Training step; 0 in evaluation."""
    bad_images: int
    """How many unreadable images were replaced by others in this batch."""

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; the DataLoader calls this by name."""
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class _Request:
    step: int
    micro_batch: int
    indices: Rows


class _BatchReader(Dataset[Batch | InputError]):
    """Reads one batch a request; returns an `InputError`, for a raised one would arrive wrapped in a traceback."""

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
    """This rank's micro-batches from step `start_step` on, without end; the same whatever `num_workers` is.

    Raises `InputError` for an unreadable image (the source's policy permitting) and for a worker process that died.
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
    """One batch for each of `shards`, in order; errors as in `training_batches`."""
    requests = [_Request(0, number, indices) for number, indices in enumerate(shards)]
    return _batches(source, requests, min(num_workers, len(requests)), pin_memory)


def _batches(source: ImageSource, requests: Iterable[_Request], num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    workers = 0 if source.in_memory else num_workers
    loader = DataLoader(
        _BatchReader(source),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_the_main_process,
        multiprocessing_context=_worker_context() if workers else None,
        pin_memory=pin_memory,
    )
    try:
        for item in loader:
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
    """Torch says so; but a worker that dies while it hands over a batch shows as a broken connection before that."""
    if isinstance(error, RuntimeError):  # the thread that pins memory dies of the broken connection
        return str(error).startswith(("DataLoader worker", "Pin memory thread exited"))
    return not str(error).startswith("Caught ")  # how torch begins an exception from inside a worker


def _worker_context() -> multiprocessing.context.ForkServerContext:
    """Workers forked from a clean server process that has torch loaded: started quickly, and again for each evaluation.

    A plain fork would copy a process with CUDA, MPI and threads in it, and would make torch report a dead worker by a
    signal handler that raises in the middle of the training step instead of here.
    """
    _kill_workers_at_exit()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)  # for good in the server, which ends with us
    try:
        resource_tracker.ensure_running()  # the server starts it too, but its start unblocks what it ignores itself
        signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@cache
def _kill_workers_at_exit() -> None:
    """A program that ends amid its reading, of an error, sends its workers SIGTERM and waits for them: for ever, since
    they take it for the group's. This runs before that.
    """

    def kill_workers() -> None:
        for child in multiprocessing.active_children():
            if child.daemon and isinstance(child, multiprocessing.context.ForkServerProcess):
                child.kill()

    atexit.register(kill_workers)


def _leave_signals_to_the_main_process(worker: int) -> None:
    """A terminal, torchrun and SLURM signal every process they find: only the main one shall answer, and it ends the
    workers. A second SIGTERM is its own, or somebody's who means it.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def first_term(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first_term)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
