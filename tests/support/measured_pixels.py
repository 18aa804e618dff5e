"""Measurements of a few images that a test holds in memory. Shapes: N images, C channels, H W resolution."""

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor

from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.processes.world import World

T = TypeVar("T")


def silently(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """A tracker that shows nothing."""
    return items


def measuring_of(pixels: Tensor, world: World, *, batch: int = 3, seed: int = 0) -> Measuring:
    """Of all of pixels (N, C, H, W) uint8."""
    images = pixels.permute(0, 2, 3, 1).numpy()
    return Measuring(ArraySource(images, all_rows(images), "pixels"), len(images), batch, seed, world, silently)


def numbers_of(quantities: Iterable[Quantity]) -> dict[str, list[float]]:
    """Every number of every quantity by key: total, resolutions and groups, each with its error (NaN for none)."""
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
