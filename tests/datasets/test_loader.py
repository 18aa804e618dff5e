"""Batches through worker processes: the same whatever their number, and their failures in one sentence."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vdvae_lr.datasets import loader
from vdvae_lr.datasets.folder import FolderSource, find_images
from vdvae_lr.datasets.loader import Batch, check_readers, evaluation_batches, training_batches
from vdvae_lr.datasets.sampler import TrainingOrder, evaluation_shards
from vdvae_lr.datasets.sources import ArraySource, MemoryMappedSource, all_rows
from vdvae_lr.errors import InputError
from vdvae_lr.files.bundled import CHECKOUT_ROOT


class DyingSource(ArraySource):
    """A source whose reader process is killed, as the kernel does when memory runs out."""

    in_memory = False

    def read(self, indices):
        os.kill(os.getpid(), signal.SIGKILL)


class SignalSource(ArraySource):
    """A source that returns 1 where SIGINT is ignored and 0 where it is not."""

    in_memory = False

    def read(self, indices):
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        return np.full((len(indices), 1, 1, 1), ignored, np.uint8)


SIGNALLED = """
import itertools, multiprocessing, os, re, signal, sys, time
from pathlib import Path
import numpy as np
from vdvae_lr.datasets.loader import training_batches
from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import MemoryMappedSource

source = MemoryMappedSource(Path(sys.argv[1]), np.arange(20))
batches = training_batches(source, TrainingOrder(20, 8, 4, 0, 1, seed=0), 0, 1, pin_memory=False)
next(batches)
(worker,) = multiprocessing.active_children()
server = int(re.search(r"PPid:\\s+(\\d+)", Path(f"/proc/{worker.pid}/status").read_text())[1])
assert server != os.getpid()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    os.kill(server, number)
time.sleep(0.5)
print(len(list(itertools.islice(batches, 20))))
"""
"""Reads on after the process that workers are forked from was signalled; in a process where nothing ran before."""


def random_images(count: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def mapped(tmp_path: Path) -> MemoryMappedSource:
    np.save(tmp_path / "images.npy", random_images())
    return MemoryMappedSource(tmp_path / "images.npy", np.arange(20)[::-1].copy())


def first(source, count: int, num_workers: int, start_step: int = 0) -> list[Batch]:
    order = TrainingOrder(len(source), 8, 4, 0, 1, seed=0)
    return list(islice(training_batches(source, order, start_step, num_workers, pin_memory=False), count))


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.step, one.micro_batch) == (other.step, other.micro_batch)
        np.testing.assert_array_equal(one.indices, other.indices)
        assert torch.equal(one.pixels, other.pixels)


def test_the_number_of_workers_does_not_change_the_batches(mapped: MemoryMappedSource):
    alone = first(mapped, 15, 0)
    assert [(b.step, b.micro_batch) for b in alone[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for num_workers in (1, 2):
        assert_same(first(mapped, 15, num_workers), alone)


def test_a_later_start_skips_exactly_the_steps_before_it(mapped: MemoryMappedSource):
    assert_same(first(mapped, 6, 0, start_step=4), first(mapped, 14, 0)[8:])


def test_pixels_are_the_sources_in_channels_last_memory(mapped: MemoryMappedSource):
    for num_workers in (0, 1):
        batch = first(mapped, 1, num_workers)[0]
        assert batch.pixels.shape == (4, 3, 8, 8)
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), mapped.read(batch.indices))


def test_evaluation_reads_each_example_once_and_the_last_batch_is_short(mapped: MemoryMappedSource):
    shards = evaluation_shards(len(mapped), 6, 0, 1)
    for num_workers in (0, 2):
        batches = list(evaluation_batches(mapped, shards, num_workers, pin_memory=False))
        assert [len(b.pixels) for b in batches] == [6, 6, 6, 2]
        assert np.concatenate([b.indices for b in batches]).tolist() == list(range(20))


def test_a_rank_without_shards_has_no_batches(mapped: MemoryMappedSource):
    assert list(evaluation_batches(mapped, [], 2, pin_memory=False)) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_stops_with_its_name_in_one_sentence(tmp_path: Path, num_workers: int):
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_text("text")
    source = FolderSource(tmp_path, find_images(tmp_path), 8, 3)
    with pytest.raises(InputError, match=r"5\.png cannot be read as an image") as caught:
        first(source, 2, num_workers)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_count_of_skipped_images_reaches_the_main_process(tmp_path: Path, num_workers: int):
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    for number in (2, 5):
        (tmp_path / f"{number}.png").write_text("text")
    source = FolderSource(tmp_path, find_images(tmp_path), 8, 3, "skip")
    batches = first(source, 4, num_workers)  # two epochs of two batches
    assert sum(batch.bad_images for batch in batches) == 4


def test_a_worker_that_dies_is_reported_with_a_remedy():
    source = DyingSource(random_images(), np.arange(20), "images")
    with pytest.raises(InputError, match=r"a process that reads images died .* --num_workers 0"):
        first(source, 1, 1)


def test_more_readers_than_cores_are_said_and_far_more_are_refused(mapped: MemoryMappedSource, monkeypatch):
    monkeypatch.setattr(loader, "usable_cores", lambda: 2)
    assert check_readers(2, mapped) == []
    assert "may use 2 core(s) only" in check_readers(3, mapped)[0]
    assert check_readers(16, mapped)
    with pytest.raises(InputError, match=r"num_workers is 17, .* give 16 or fewer"):
        check_readers(17, mapped)
    with pytest.raises(InputError, match="num_workers is 1000"):
        first(mapped, 1, 1000)
    with pytest.raises(InputError, match="num_workers is 1000"):
        next(evaluation_batches(mapped, [np.arange(1)] * 1000, 1000, pin_memory=False))


def test_readers_of_images_in_memory_are_never_too_many():
    images = random_images()
    source = ArraySource(images, all_rows(images), "images")
    assert check_readers(1000, source) == []
    assert len(first(source, 1, 1000)) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_torch_does_not_warn_of_readers_as_well(mapped: MemoryMappedSource):
    """Warnings are errors here."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert len(first(mapped, 1, 2)) == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert loader.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert loader.usable_cores() == len(allowed)


def test_workers_leave_interrupts_to_the_main_process():
    source = SignalSource(random_images(), np.arange(20), "images")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs in the background without
    try:
        assert first(source, 1, 1)[0].pixels.unique().tolist() == [1]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_server_of_the_workers_outlives_signals_to_the_whole_group(mapped: MemoryMappedSource, tmp_path: Path):
    """A worker whose server is gone ends itself at its next request."""
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "images.npy")]
    done = subprocess.run(command, cwd=CHECKOUT_ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr


def test_images_in_memory_are_read_without_workers():
    images = random_images()
    source = ArraySource(images, all_rows(images), "images")
    source.read = lambda indices: np.full((len(indices), 1, 1, 1), os.getpid() % 251, np.uint8)
    assert first(source, 1, 2)[0].pixels.unique().tolist() == [os.getpid() % 251]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA card")
def test_pinned_batches_keep_their_layout(mapped: MemoryMappedSource):
    shards = evaluation_shards(len(mapped), 6, 0, 1)
    batch = next(evaluation_batches(mapped, shards, 1, pin_memory=True))
    assert batch.pixels.is_pinned()
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
