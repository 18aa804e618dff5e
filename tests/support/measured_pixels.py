"""Measure a few images that a test has in memory. Shapes: N images, C channels, H W resolution."""

from collections.abc import Iterable
from typing import Any, TypeVar

from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.evaluation.activity import ACTIVE_VARIANCE, ActivityReader, LatentStatistics
from vdvae_lr.evaluation.batches import Reader, read_passes
from vdvae_lr.evaluation.bound import RatesReader
from vdvae_lr.evaluation.information import RecoveryReader
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings, InputRates, Quantity
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World

T = TypeVar("T")


def silently(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """A progress tracker that shows nothing."""
    return items


def measuring_of(pixels: Tensor, world: World, *, batch: int = 3, seed: int = 0) -> Measuring:
    """What a measurement of all pixels (N, C, H, W) uint8 needs."""
    images = pixels.permute(0, 2, 3, 1).numpy()
    return Measuring(ArraySource(images, all_rows(images), "pixels"), len(images), batch, seed, world, silently)


def task_of(model: LatentModel, measuring: Measuring, before: LatentModel | None = None, **settings: Any) -> Task:
    """What a section is given; `settings` are those of `SectionSettings`."""
    return Task(model, before, measuring, SectionSettings(**settings))


def numbers_of(quantities: Iterable[Quantity]) -> dict[str, list[float]]:
    """All numbers of each quantity by key: total, resolutions and groups, each with its error (NaN if it has none)."""
    return {
        quantity.key: [
            number
            for measured in (quantity.total, *quantity.resolutions.values(), *quantity.groups)
            if measured is not None
            for number in (
                measured.value,
                float("nan") if measured.standard_error is None else measured.standard_error,
                float(measured.images),
            )
        ]
        for quantity in quantities
    }


def read(model: LatentModel, measuring: Measuring, *readers: Reader) -> None:
    """Give the passes over all images to the readers."""
    batches = measuring.batches("passes")
    read_passes(model, batches, readers, seed=measuring.seed, world=measuring.world, reencoding=True)


def measure_rates(
    model: LatentModel, measuring: Measuring, *, content_dimensions: int = 0
) -> tuple[list[Quantity], InputRates]:
    reader = RatesReader(model, measuring.count(), content_dimensions)
    read(model, measuring, reader)
    found = reader.findings()
    assert found.inputs is not None
    return list(found.quantities), found.inputs


def measure_recovery(model: LatentModel, measuring: Measuring, before: LatentModel | None = None) -> Findings:
    reader = RecoveryReader(model, before)
    read(model, measuring, reader)
    return reader.findings()


def measure_active_units(
    model: LatentModel, measuring: Measuring, *, threshold: float = ACTIVE_VARIANCE
) -> tuple[list[Quantity], list[str]]:
    reader = ActivityReader(model)
    read(model, measuring, reader)
    found = reader.findings(threshold)
    return list(found.quantities), list(found.notes)


def latent_statistics(model: LatentModel, batches: Iterable[Batch], *, world: World) -> LatentStatistics:
    reader = ActivityReader(model)
    read_passes(model, batches, [reader], seed=0, world=world)
    return reader
