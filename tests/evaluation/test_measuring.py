"""How processes share the images, and progress where a batch is many steps."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from measured_pixels import measuring_of
from torch import Tensor

from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.processes.world import World


@pytest.fixture
def measuring(pixels: Tensor, world: World) -> Measuring:
    return measuring_of(pixels, world, batch=32)


def shares(measuring: Measuring, size: int, wanted: int | None = None) -> list[list[int]]:
    """The examples of each of so many processes."""
    worlds = [World(rank, size, torch.device("cpu")) for rank in range(size)]
    each = [replace(measuring, world=world).batches("x", wanted) for world in worlds]
    return [[int(index) for batch in batches for index in batch.indices] for batches in each]


@pytest.mark.parametrize(("size", "wanted", "most"), [(1, None, 7), (2, None, 4), (3, 4, 2), (4, 4, 1), (8, 3, 1)])
def test_few_images_occupy_every_process(measuring: Measuring, size: int, wanted: int | None, most: int) -> None:
    found = shares(measuring, size, wanted)
    assert sorted(index for share in found for index in share) == list(range(wanted or 7))
    assert max(len(share) for share in found) == most


def test_more_images_than_there_are_means_all(measuring: Measuring) -> None:
    assert measuring.count(100) == 7
    assert [len(rows) for rows in measuring.shards(100)] == [7]


def test_samples_and_images_have_the_same_numbers(measuring: Measuring) -> None:
    small = replace(measuring, batch=3)
    images = [list(batch.indices) for batch in small.batches("x")]
    assert images == [list(shard) for shard in small.samples("x")] == [[0, 1, 2], [3, 4, 5], [6]]
    assert np.array_equal([index for batch in small.read() for index in batch.indices], range(7))


def test_steps_are_counted_to_the_end(measuring: Measuring) -> None:
    seen: list[tuple[str, int, int]] = []

    def track(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        for number, item in enumerate(items):
            seen.append((what, number, total))
            yield item

    shown = replace(measuring, track=track, name="LR")
    with shown.counting("weights", 4) as tick:
        tick()
        tick()
        assert seen == [("LR: weights", 0, 4), ("LR: weights", 1, 4)]
    assert len(seen) == 4


def test_other_processes_can_ask_where_this_one_is(measuring: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(World, "at", lambda world, where: said.append(where))
    named = replace(measuring, name="LR")
    named.batches("bound")
    named.samples("information")
    with named.counting("weights", 1):
        pass
    assert said == ["LR: bound", "LR: information", "LR: weights"]
