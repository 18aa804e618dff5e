"""How the images of an iteration are shared among processes, or why they cannot be."""

import pytest
from refusals import refused

from vdvae_lr.training.build import micro_batches
from vdvae_lr.training.settings import RunSettings


@pytest.mark.parametrize(("global_batch", "processes", "expected"), [(0, 3, 3), (24, 2, 6), (24, 6, 6)])
def test_micro_batches_are_counted_over_all_processes(global_batch: int, processes: int, expected: int) -> None:
    assert micro_batches(RunSettings(n_batch=4, global_batch=global_batch), processes) == expected


def test_images_that_the_processes_cannot_share_evenly_are_refused() -> None:
    with refused("global_batch 12", "no multiple of n_batch 4 × 2 process(es)", "choose an --n_batch that divides 6"):
        micro_batches(RunSettings(n_batch=4, global_batch=12), 2)
