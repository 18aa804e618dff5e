"""What all measurements of one model share: the images, the seed, the processes, and who shows progress."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vdvae_lr.datasets.loader import Batch, evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import Examples

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
        shards = evaluation_shards(self.count(wanted), self.batch, self.world.rank, self.world.size)
        pinned = self.world.device.type == "cuda"
        return self.track(
            evaluation_batches(self.source, shards, self.num_workers, pinned), len(shards), self._words(what)
        )

    def samples(self, what: str, wanted: int | None = None) -> Iterable[Examples]:
        """Numbers of the samples that this process makes, a batch each: as many in all as `batches` has images."""
        shards = evaluation_shards(self.count(wanted), self.batch, self.world.rank, self.world.size)
        return self.track(shards, len(shards), self._words(what))

    def _words(self, what: str) -> str:
        return f"{self.name}: {what}" if self.name else what
