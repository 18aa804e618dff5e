"""What the tests share: a small model, its images and their batches, and two processes as threads."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import no_network  # noqa: F401 # before anything that imports huggingface_hub
import numpy as np
import pytest
import torch
from small_config import SMALL
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.processes.world import World

T = TypeVar("T")
EXAMPLES = 7
CPU = torch.device("cpu")

if "OMP_NUM_THREADS" not in os.environ:  # a suite with more threads is asked for with it
    torch.set_num_threads(1)  # on tensors this small threads only wait for each other, tenfold where cores are shared


@pytest.fixture
def small_model() -> VDVAE:
    """A float64 model of five latent groups with every weight random, so that no path is silent."""
    torch.manual_seed(0)
    model = VDVAE(SMALL).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def small_levels() -> torch.Tensor:
    """Two random images (2, 3, 8, 8) of whole levels in float64."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 8, 8), generator=generator).double()


@pytest.fixture
def small_noise(small_model: VDVAE) -> PassNoise:
    """Every kind of noise for two images of the small model."""
    noise = PassNoise(small_model, 2, torch.device("cpu"), prior=True)
    noise.draw(2)
    return noise


@pytest.fixture
def pixels() -> Tensor:
    """Seven images (7, 3, 8, 8) uint8, the size of `small_model`'s."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (EXAMPLES, 3, 8, 8), generator=generator, dtype=torch.uint8)


@pytest.fixture
def batches_of(pixels: Tensor) -> Callable[[Sequence[Sequence[int]]], list[Batch]]:
    """Batches of the given examples."""
    return lambda shards: [Batch(pixels[list(rows)], np.array(rows), 0, 0, 0) for rows in shards]


@pytest.fixture
def world() -> World:
    """One process."""
    return World(0, 1, CPU)


@dataclass
class _Meeting:
    size: int
    values: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=60)


class ThreadWorld(World):
    """A process that is a thread: sums with the others of its meeting as a process group would."""

    meeting: _Meeting

    def all_reduce_sum_(self, values: Tensor) -> Tensor:
        self.meeting.values[self.rank] = values.clone()
        self.meeting.barrier.wait()
        total = torch.stack([self.meeting.values[rank] for rank in range(self.size)]).sum(0)
        self.meeting.barrier.wait()
        return values.copy_(total)

    def highest(self, number: int) -> int:
        numbers = torch.zeros(self.size, dtype=torch.int64)
        numbers[self.rank] = number
        return int(self.all_reduce_sum_(numbers).max())


@pytest.fixture
def in_worlds() -> Callable[[int, Callable[[World], T]], list[T]]:
    """Calls a function once in each of so many processes; returns their results."""

    def call(size: int, function: Callable[[World], T]) -> list[T]:
        meeting = _Meeting(size)
        worlds = [ThreadWorld(rank, size, CPU) for rank in range(size)]
        for one in worlds:
            object.__setattr__(one, "meeting", meeting)
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(function, worlds))

    return call


@pytest.fixture
def collapsed_model(small_model: VDVAE) -> VDVAE:
    """All priors and posteriors are N(0, 1): the latents say nothing about the image, though the decoder reads them."""
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            for network in (block.prior, block.posterior):
                network.expand.weight.zero_()
                network.expand.bias.zero_()
    return small_model
