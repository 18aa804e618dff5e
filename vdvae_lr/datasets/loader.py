"""Batches read ahead of the model by worker processes. Shapes: B images, C channels, H W resolution."""

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
"""For the helper process of multiprocessing. When this process is killed, the helper removes its semaphores, and its
warning about them would be the last line that a person sees."""
_MOST_READERS_A_CORE = 8  # each takes some 200 MB; a thousand of them were seen to stop a machine of two cores


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


def check_readers(num_workers: int, source: ImageSource) -> list[str]:
    """What a person should know of the number of readers: one sentence where it is above the cores, else nothing.

    Raises:
        InputError: so many that starting them could stop the machine.
    """
    cores = _usable_cores()
    if source.in_memory or num_workers <= cores:
        return []
    if num_workers > cores * _MOST_READERS_A_CORE:
        raise InputError(
            f"num_workers is {num_workers}, but this process may use {cores} core(s) only; give "
            f"{cores * _MOST_READERS_A_CORE} or fewer (--num_workers {cores} is a good number)."
        )
    return [
        f"{num_workers} processes read images for this one, which may use {cores} core(s) only: they will wait for "
        f"each other and take memory; --num_workers {cores} is a good number."
    ]


def _usable_cores() -> int:
    """Cores that this process may run on; a container or a launcher may have given it a few of the machine's only."""
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
    """Torch says so; but a worker that dies while it hands over a batch shows as a broken connection before that."""
    if isinstance(error, RuntimeError):  # the thread that pins memory dies of the broken connection
        return str(error).startswith(("DataLoader worker", "Pin memory thread exited"))
    return not str(error).startswith("Caught ")  # how torch begins an exception from inside a worker


def _reader_context() -> multiprocessing.context.ForkServerContext:
    """Readers are forked from a clean server process that has torch loaded, so each evaluation starts them quickly.

    A plain fork would copy a process that has CUDA, MPI and threads in it. It would also make torch report a dead
    reader by a signal handler that raises in the middle of the training step, instead of in `_batches`.
    """
    _kill_readers_at_exit()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    # The server inherits the blocked signals and keeps them blocked. It ends when this process and all readers ended.
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

    When a program ends in the middle of reading, that handler sends SIGTERM to the readers and joins them. They ignore
    the first SIGTERM, so it would wait for ever.
    """

    def kill_readers() -> None:
        for child in multiprocessing.active_children():
            if child.daemon and isinstance(child, multiprocessing.context.ForkServerProcess):
                child.kill()

    atexit.register(kill_readers)


def _prepare_reader(number: int) -> None:
    """Run first in each reader: live exactly as long as the main process, and leave the group's signals to it."""
    Thread(target=_end_with_the_main_process, name="main process watch", daemon=True).start()
    _leave_signals_to_the_main_process()


def _end_with_the_main_process() -> None:
    """End this reader as soon as the main process is gone, however it ended.

    Torch's own check compares the parent's process number. A reader's parent is the server, and the server lives until
    the last reader has ended; so without this both would live for ever, and hold the output of mpiexec open.
    """
    main_process = multiprocessing.parent_process()
    if main_process is not None:
        main_process.join()
        os._exit(1)


def _leave_signals_to_the_main_process() -> None:
    """Ignore Ctrl-C, SIGUSR1 and the first SIGTERM: terminals, torchrun and SLURM signal every process they find.

    Only the main process answers them, and it ends the readers. A second SIGTERM comes from the main process or from
    somebody who means this reader, so it ends the reader.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def first_term(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, first_term)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
