"""What all measurements of one model share: the images, the seed, the processes, and the display of progress."""

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
    """The images that one model is measured on, and how the processes share them.

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
    """Seed of all noise. Each draw also depends on its purpose and on the example's number."""
    world: World
    track: Tracker
    name: str = ""
    """The model's name in the progress display; empty if there is only one model."""
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Refuse to measure on nothing."""
        if self.examples < 1 or len(self.source) < 1:
            raise InputError("there are no images to evaluate on; choose a split that has some.")

    def count(self, wanted: int | None = None) -> int:
        """The number of images that a measurement gets if it asks for `wanted` (None: all)."""
        available = min(self.examples, len(self.source))
        return available if wanted is None else min(wanted, available)

    def batches(self, what: str, wanted: int | None = None) -> Iterable[Batch]:
        """This process's share of the first `wanted` images (None: all). `what` names the work in the progress."""
        return self.track(self.read(wanted), len(self.shards(wanted)), self._words(what))

    def samples(self, what: str, wanted: int | None = None) -> Iterable[Examples]:
        """The numbers of the samples that this process makes, a batch at a time: as many samples as `batches` has
        images.
        """
        shards = self.shards(wanted)
        return self.track(shards, len(shards), self._words(what))

    def read(self, wanted: int | None = None) -> Iterable[Batch]:
        """The images of `batches`, without progress: for a caller that counts smaller steps (`counting`)."""
        pinned = self.world.device.type == "cuda"
        return evaluation_batches(self.source, self.shards(wanted), self.num_workers, pinned)

    @contextmanager
    def counting(self, what: str, steps: int) -> Iterator[Callable[[], None]]:
        """Show progress over so many steps of this process. The caller calls the yielded function at each step."""
        ticks = iter(self.track(range(steps), steps, self._words(what)))

        def tick() -> None:
            next(ticks, None)

        yield tick
        for _ in ticks:
            pass  # a tracker closes its bar when its items end

    def shards(self, wanted: int | None = None) -> list[Rows]:
        """The numbers of this process's images, a batch at a time. Few images make smaller batches, so that each
        process has some.
        """
        count = self.count(wanted)
        share = math.ceil(count / self.world.size)
        return evaluation_shards(count, max(1, min(self.batch, share)), self.world.rank, self.world.size)

    def _words(self, what: str) -> str:
        """Words for the progress. Other processes read them, too, if this one stands still."""
        words = f"{self.name}: {what}" if self.name else what
        self.world.at(words)
        return words
