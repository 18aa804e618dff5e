"""What all measurements of one model share: the images, the seed, the processes, and who shows progress."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vdvae_lr.datasets.loader import Batch, evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.datasets.sources import ImageSource, Rows
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import Examples
from vdvae_lr.processes.world import World

T = TypeVar("T")


class Tracker(Protocol):
    """Shows how far a loop is."""

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        """The same items."""


@dataclass(frozen=True)
class Measuring:
    """One model's measurements: what they are made on, and how the processes share it.

    Raises:
        InputError: the split has no image.
    """

    source: ImageSource
    """The split."""
    examples: int
    """Measure on the first so many images of it, each once."""
    batch: int
    """Images at once on one process; changes no number."""
    seed: int
    """Of all noise, with the purpose and the example's number."""
    world: World
    track: Tracker
    name: str = ""
    """Of the model, for the progress; empty: there is only one."""
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Refuse to measure on nothing."""
        if self.examples < 1 or len(self.source) < 1:
            raise InputError("there are no images to evaluate on; choose a split that has some.")

    def count(self, wanted: int | None = None) -> int:
        """Images that a measurement of `wanted` ones (None: all) gets."""
        available = min(self.examples, len(self.source))
        return available if wanted is None else min(wanted, available)

    def batches(self, what: str, wanted: int | None = None) -> Iterable[Batch]:
        """This process's share of the first `wanted` images (None: all), with progress under the words `what`."""
        return self.track(self.read(wanted), self.batch_count(wanted), self._words(what))

    def samples(self, what: str, wanted: int | None = None) -> Iterable[Examples]:
        """Numbers of the samples that this process makes, a batch each: as many in all as `batches` has images."""
        shards = self.shards(wanted)
        return self.track(shards, len(shards), self._words(what))

    def read(self, wanted: int | None = None) -> Iterable[Batch]:
        """As `batches`, and nothing shown: for what counts smaller steps itself."""
        pinned = self.world.device.type == "cuda"
        return evaluation_batches(self.source, self.shards(wanted), self.num_workers, pinned)

    def batch_count(self, wanted: int | None = None) -> int:
        """Batches of this process's share."""
        return len(self.shards(wanted))

    @contextmanager
    def counting(self, what: str, steps: int) -> Iterator[Callable[[], None]]:
        """Progress of so many steps of this process, where a batch is many: call what it gives at each of them."""
        ticks = iter(self.track(range(steps), steps, self._words(what)))

        def tick() -> None:
            next(ticks, None)

        yield tick
        for _ in ticks:
            pass  # a bar ends when what it follows does

    def shards(self, wanted: int | None = None) -> list[Rows]:
        """Numbers of this process's images, a batch each; few images make small batches: each process has some."""
        count = self.count(wanted)
        share = math.ceil(count / self.world.size)
        return evaluation_shards(count, max(1, min(self.batch, share)), self.world.rank, self.world.size)

    def _words(self, what: str) -> str:
        """For the progress, and for the other processes, who may ask where this one is."""
        words = f"{self.name}: {what}" if self.name else what
        self.world.at(words)
        return words
