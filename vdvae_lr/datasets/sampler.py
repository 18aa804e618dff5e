"""Which images each rank reads at each step: pure functions of (seed, step), so that resuming needs no saved state.

Legend: N examples, G images a step over all ranks, n images a micro-batch, k micro-batches a rank and step.
"""

from functools import lru_cache

import numpy as np

from vdvae_lr.datasets.sources import Rows
from vdvae_lr.errors import InputError


def micro_batch_count(global_batch: int, n_batch: int, processes: int) -> int:
    """Micro-batches of one step over all processes.

    Raises:
        InputError: the processes cannot share `global_batch` images evenly.
    """
    at_once = n_batch * processes
    if global_batch % at_once:
        below = global_batch // at_once * at_once
        advice = f"{below} or {below + at_once}" if below else str(at_once)
        who = "one process takes" if processes == 1 else f"{processes} processes take"
        raise InputError(
            f"global_batch {global_batch} is no multiple of the {at_once} images that {who} at once (n_batch {n_batch} "
            f"each); set --global_batch to {advice}, or choose another --n_batch or another number of processes."
        )
    return global_batch // n_batch


class TrainingOrder:
    """The endless concatenation of one permutation of the examples an epoch, cut into steps and micro-batches.

    Step s takes positions [s·G, (s+1)·G); its micro-batch m takes the m-th run of n of them, and rank r owns the
    micro-batches r·k … r·k+k−1. An epoch may end inside a step. The order does not depend on the number of ranks.
    """

    def __init__(self, n_examples: int, global_batch: int, n_batch: int, rank: int, world_size: int, seed: int) -> None:
        """Raises `InputError` when the sizes do not divide evenly or there is nothing to read."""
        if n_examples < 1:
            raise InputError("the training split holds no images: choose other data with --dataset or --data_root")
        for name, value in (("global_batch", global_batch), ("n_batch", n_batch)):
            if value < 1:
                raise InputError(f"{name} is {value}: give a number from 1 up")
        if seed < 0:
            raise InputError(f"seed is {seed}: give a number from 0 up")
        self.n_examples = n_examples
        self.global_batch = global_batch
        self.n_batch = n_batch
        self.rank = rank
        self.seed = seed
        self.micro_batches_per_rank = micro_batch_count(global_batch, n_batch, world_size) // world_size

    def micro_batches(self, step: int) -> list[tuple[int, Rows]]:
        """This rank's (global micro-batch number m, example indices (n,)) of step `step`."""
        k = self.micro_batches_per_rank
        start = step * self.global_batch + self.rank * k * self.n_batch
        indices = self._examples(start, k * self.n_batch).reshape(k, self.n_batch)
        return [(self.rank * k + number, row) for number, row in enumerate(indices)]

    def _examples(self, start: int, count: int) -> Rows:
        """The examples at positions [start, start + count) of the endless order."""
        runs = []
        while count > 0:
            epoch, offset = divmod(start, self.n_examples)
            run = epoch_permutation(self.n_examples, self.seed, epoch)[offset : offset + count]
            runs.append(run)
            start += len(run)
            count -= len(run)
        return np.concatenate(runs)


@lru_cache(maxsize=2)  # a step touches the current epoch and, at its end, the next
def epoch_permutation(n_examples: int, seed: int, epoch: int) -> Rows:
    """The order (N,) of one epoch, read-only.

    Through numpy's legacy generator, whose stream is frozen for good, so that an upgrade cannot reorder a run's data.
    """
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, epoch))))
    order = generator.permutation(n_examples).astype(np.int64)
    order.flags.writeable = False
    return order


def evaluation_shards(n_examples: int, n_batch: int, rank: int, world_size: int) -> list[Rows]:
    """This rank's batches: the examples in order, n at a time, dealt to the ranks in turn.

    Over all ranks every example appears exactly once. The last batch may be short and ranks may differ by one batch,
    so a caller that meets other ranks must do it after its loop.
    """
    if n_batch < 1:
        raise InputError(f"n_batch is {n_batch}: give a number from 1 up")
    starts = range(rank * n_batch, n_examples, world_size * n_batch)
    return [np.arange(start, min(start + n_batch, n_examples), dtype=np.int64) for start in starts]
