"""Averages by group, resolution and in total equal numpy's, whatever the batches and processes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.evaluation.moments import GroupMoments, PerExample
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.processes.world import World

RESOLUTIONS = (1, 4, 4, 8)
CPU = torch.device("cpu")


@pytest.fixture
def values() -> Tensor:
    """Of nine images and four groups that go together."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 4, generator=generator) + torch.randn(9, 1, generator=generator)


def expected(column: np.ndarray[Any, Any], factor: float) -> Measurement:
    error = column.std(ddof=1) / np.sqrt(len(column))
    return Measurement(pytest.approx(factor * column.mean()), pytest.approx(factor * error), len(column))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_groups_resolutions_and_total(
    values: Tensor, size: int, in_worlds: Callable[[int, Callable[[World], Quantity]], list[Quantity]]
) -> None:
    def measure(world: World) -> Quantity:
        moments = GroupMoments(RESOLUTIONS, CPU)
        mine = values[world.rank :: world.size]
        for batch in (mine[:2], mine[2:]):
            moments.add(batch)
        moments.all_reduce_(world)
        assert moments.count == 9
        return moments.quantity("rate", "rate", "nats/dim", 0.1)

    columns = values.double().numpy()
    for found in in_worlds(size, measure):
        assert (found.key, found.title, found.unit) == ("rate", "rate", "nats/dim")
        assert found.total == expected(columns.sum(1), 0.1)
        assert list(found.groups) == [expected(columns[:, group], 0.1) for group in range(4)]
        assert dict(found.resolutions) == {
            1: expected(columns[:, 0], 0.1),
            4: expected(columns[:, 1:3].sum(1), 0.1),
            8: expected(columns[:, 3], 0.1),
        }


def test_one_image_has_no_error(values: Tensor) -> None:
    moments = GroupMoments(RESOLUTIONS, CPU)
    moments.add(values[:1])
    total = moments.quantity("rate", "rate", "").total
    assert total is not None and total.standard_error is None and total.images == 1


def test_rows_of_all_processes_come_together(
    values: Tensor, in_worlds: Callable[[int, Callable[[World], Tensor]], list[Tensor]]
) -> None:
    def gather(world: World) -> Tensor:
        rows = PerExample(9, 4, CPU)
        mine = np.arange(9)[world.rank :: world.size]
        rows.add(mine, values[torch.from_numpy(mine)])
        rows.all_reduce_(world)
        return rows.values

    for found in in_worlds(3, gather):
        assert torch.equal(found, values.double())
