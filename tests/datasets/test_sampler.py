"""The order of images: complete, independent of ranks, and a pure function of the step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdvae_lr.datasets.sampler import TrainingOrder, epoch_permutation, evaluation_shards, micro_batch_count
from vdvae_lr.errors import InputError


def step_of(n_examples: int, global_batch: int, n_batch: int, world_size: int, step: int, seed: int = 0) -> dict:
    """Global micro-batch number → indices, gathered from all ranks."""
    gathered: dict[int, list[int]] = {}
    for rank in range(world_size):
        order = TrainingOrder(n_examples, global_batch, n_batch, rank, world_size, seed)
        for number, indices in order.micro_batches(step):
            assert number not in gathered
            gathered[number] = indices.tolist()
    return gathered


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_every_image_appears_exactly_once_an_epoch(n_examples, n_batch, per_rank, world_size, seed):
    global_batch = n_batch * per_rank * world_size
    seen: list[int] = []
    for step in range(3 * n_examples // global_batch + 1):
        micro_batches = step_of(n_examples, global_batch, n_batch, world_size, step, seed)
        assert sorted(micro_batches) == list(range(per_rank * world_size))
        seen += [index for number in sorted(micro_batches) for index in micro_batches[number]]
    for epoch in range(len(seen) // n_examples):
        assert sorted(seen[epoch * n_examples : (epoch + 1) * n_examples]) == list(range(n_examples))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_the_number_of_ranks_does_not_change_the_order(world_size: int):
    for step in (0, 3, 17):
        assert step_of(50, 12, 2, world_size, step) == step_of(50, 12, 2, 1, step)


def test_a_rank_owns_a_contiguous_run_of_micro_batches():
    order = TrainingOrder(100, 24, 2, rank=1, world_size=3, seed=0)
    assert [number for number, _ in order.micro_batches(5)] == [4, 5, 6, 7]


def test_resuming_at_a_step_equals_having_come_there():
    walked = TrainingOrder(23, 8, 4, 0, 1, seed=3)
    history = [walked.micro_batches(step) for step in range(20)]
    resumed = TrainingOrder(23, 8, 4, 0, 1, seed=3)
    for step in (19, 4, 11):
        for (number, indices), (again, indices_again) in zip(history[step], resumed.micro_batches(step), strict=True):
            assert number == again
            np.testing.assert_array_equal(indices, indices_again)


def test_epochs_and_seeds_give_different_orders_and_the_first_is_pinned():
    orders = {tuple(epoch_permutation(30, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    # A change here changes the data of every resumed run.
    assert epoch_permutation(8, 0, 0).tolist() == [6, 3, 5, 0, 7, 2, 1, 4]


def test_a_split_without_images_is_refused():
    with pytest.raises(InputError, match="holds no images"):
        TrainingOrder(0, 8, 4, 0, 2, 0)


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ((30, 4, 2), "global_batch 30 is no multiple of the 8 images.*set --global_batch to 24 or 32"),
        ((4, 4, 2), "set --global_batch to 8,"),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused_with_advice(sizes: tuple[int, int, int], reason: str):
    with pytest.raises(InputError, match=reason):
        micro_batch_count(*sizes)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("n_examples", [1, 7, 8, 31])
def test_evaluation_reads_every_example_once_without_padding(n_examples: int, world_size: int):
    shards = [evaluation_shards(n_examples, 4, rank, world_size) for rank in range(world_size)]
    seen = np.concatenate([batch for rank in shards for batch in rank])
    assert sorted(seen.tolist()) == list(range(n_examples))
    batches = sorted(batch.tolist() for rank in shards for batch in rank)
    assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)


def test_evaluation_batches_are_the_same_for_any_number_of_ranks():
    def batches(world_size: int) -> list[list[int]]:
        return sorted(b.tolist() for rank in range(world_size) for b in evaluation_shards(30, 4, rank, world_size))

    assert batches(3) == batches(1)
