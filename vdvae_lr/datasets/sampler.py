"""Which images each rank reads at each step: pure functions of (seed, step), so that resuming needs no saved state.

N examples, G images of a step over all ranks, n images of a micro-batch, k micro-batches of a rank in a step.
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
    """One permutation of the examples after another, cut into steps and micro-batches.

    Step s takes the positions [s·G, (s+1)·G) of that endless sequence. Its micro-batch m is the m-th group of n of
    them, and rank r reads the micro-batches r·k … r·k+k−1. An epoch may end inside a step. The order does not depend on
    the number of ranks.
    """

    def __init__(self, n_examples: int, global_batch: int, n_batch: int, rank: int, world_size: int, seed: int) -> None:
        """`global_batch` (G) is a multiple of `n_batch` (n) × `world_size`; raises InputError without examples."""
        if n_examples < 1:
            raise InputError("the training split holds no images: choose other data with --dataset or --data_root")
        self.n_examples = n_examples
        self.global_batch = global_batch
        self.n_batch = n_batch
        self.rank = rank
        self.seed = seed
        self.micro_batches_per_rank = global_batch // (n_batch * world_size)

    def micro_batches(self, step: int) -> list[tuple[int, Rows]]:
        """This rank's micro-batches of step `step`: each its number m over all ranks, and example indices (n,)."""
        k = self.micro_batches_per_rank
        start = step * self.global_batch + self.rank * k * self.n_batch
        indices = self._examples(start, k * self.n_batch).reshape(k, self.n_batch)
        return [(self.rank * k + number, row) for number, row in enumerate(indices)]

    def _examples(self, start: int, count: int) -> Rows:
        """The examples at positions [start, start + count) of the endless sequence."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(start, self.n_examples)
            piece = epoch_permutation(self.n_examples, self.seed, epoch)[offset : offset + count]
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return np.concatenate(pieces)


@lru_cache(maxsize=2)  # a step reads from the current epoch and, at its end, from the next
def epoch_permutation(n_examples: int, seed: int, epoch: int) -> Rows:
    """The order (N,) of one epoch, read-only.

    It comes from numpy's legacy generator, whose stream never changes, so that an upgrade cannot reorder a run's data.
    """
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, epoch))))
    order = generator.permutation(n_examples).astype(np.int64)
    order.flags.writeable = False
    return order


def evaluation_shards(n_examples: int, n_batch: int, rank: int, world_size: int) -> list[Rows]:
    """This rank's batches: the examples in order, `n_batch` at a time, dealt to the ranks in turn.

    Over all ranks every example appears exactly once. The last batch may be short, and one rank may have a batch more
    than another. So a caller that reduces over the ranks must do it after its loop.
    """
    starts = range(rank * n_batch, n_examples, world_size * n_batch)
    return [np.arange(start, min(start + n_batch, n_examples), dtype=np.int64) for start in starts]
