"""Mutual information I_q(X;Z) of images and latents, where z ~ q(z|x) and x is drawn from a set of n images.

    I_q(X;Z) = E_x E_q(z|x)[log q(z|x) − log 1/n Σ_j q(z|x_j)]

This is the index-code mutual information (Hoffman and Johnson 2016). It is at most ln n, because the mixture contains
the image's own posterior. The mixture is over one batch of the split or over the whole split. The former is the common
estimator: its ceiling is ln(batch), and it is far too small if the truth is larger.

In a hierarchy let z be drawn for image i. The posterior of image j at group l then needs the state h_l of i, which
depends on z_<l only, and the features of j. So a pair of images costs the posterior networks, but no top-down pass of
its own. By the chain rule the mixture splits over groups too,

    log Σ_j q(z_≤l|x_j) − log Σ_j q(z_<l|x_j),

and the groups' parts I(z_l; X | z_<l) add up to the total.

Shapes: B images, L latent groups, Q queries (images whose latents are asked for), J components of a mixture, C
channels, H W resolution.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sources import Rows
from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, ExampleNoise, levels_for
from vdvae_lr.evaluation.moments import GroupMoments
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.evaluation.task import Task
from vdvae_lr.losses.elbo import per_image
from vdvae_lr.model.latent_model import LatentModel, Latents

BATCH_MIXTURES = 8  # cost grows with the square of the batch; near the ceiling more batches change nothing


def mixture_information_nats(
    model: LatentModel, passed: Latents, queries: Rows, components: Iterator[tuple[Rows, Tensor]]
) -> Tensor:
    """log q(z_l|z_<l, x) minus the log of the mixture's q(z_l|z_<l): nats, (Q, L) float64.

    `passed` is a pass over the queries, with kept contexts, and `queries` are their numbers (Q,). `components` yields
    numbers (J,) and levels (J, C, H, W) of the mixture's images, some at a time. The queries are among them.
    """
    images = [passed.rows([row]) for row in range(len(queries))]
    own = passed.latents[0].new_full((len(queries), len(passed.latents)), math.nan, dtype=torch.float64)
    mixture = torch.full_like(own, -math.inf)
    count = 0
    for numbers, levels in components:
        features = model.encode(levels)
        count += len(numbers)
        for row, query in enumerate(queries):
            posteriors = model.posteriors(images[row], features)
            parts = [per_image(q.log_prob(z).double()) for q, z in zip(posteriors, images[row].latents, strict=True)]
            log_probs = torch.stack(parts, dim=1).cumsum(1)  # log q(z_≤l|x_j): (J, L)
            mixture[row] = torch.logaddexp(mixture[row], log_probs.logsumexp(0))
            for place in np.flatnonzero(numbers == query):  # a term of the mixture, so rounding cannot pass the ceiling
                own[row] = log_probs[place]
    cumulative = own - mixture + math.log(count)
    return torch.diff(cumulative, dim=1, prepend=torch.zeros_like(cumulative[:, :1]))


class _Mixtures:
    """Mixtures over blocks of `block` consecutive examples of a split."""

    def __init__(self, task: Task, block: int) -> None:
        self._model = task.model
        self._measuring = task.measuring
        self._block = block
        self._noise = ExampleNoise(task.model, POSTERIOR_NOISE, task.measuring.seed)

    def measure(self, queries: int, key: str, title: str, what: str) -> list[Quantity]:
        """The estimate from the split's first `queries` images, and its ceiling."""
        measuring = self._measuring
        moments = GroupMoments(self._model.resolutions, self._model.device)
        # this process computes one mixture for each block that has queries in a batch
        mixtures = sum(len(np.unique(numbers // self._block)) for numbers in measuring.shards(queries))
        with measuring.counting(what, math.ceil(self._block / measuring.batch) * mixtures) as tick:
            for batch in measuring.read(queries):
                for values in self._information_nats(batch, tick):
                    moments.add(values)
        moments.all_reduce_(measuring.world)
        per_dim = 1 / self._model.dimensions
        ceiling = Measurement(math.log(self._block) * per_dim, None, moments.count)
        return [
            moments.quantity(key, title, "nats/dim", per_dim),
            Quantity(f"{key}_ceiling", f"its ceiling, ln {self._block:,}", "nats/dim", ceiling),
        ]

    def _information_nats(self, batch: Batch, tick: Callable[[], None]) -> Iterator[Tensor]:
        """The result for the images of one batch, block by block."""
        blocks = batch.indices // self._block
        for block in np.unique(blocks):
            chosen = blocks == block
            queries = batch.indices[chosen]
            levels = levels_for(self._model, batch.pixels[torch.from_numpy(chosen)])
            passed = self._model.infer(levels, self._noise.draw(queries).posterior, keep_contexts=True)
            yield mixture_information_nats(self._model, passed, queries, self._components(int(block), tick))

    def _components(self, block: int, tick: Callable[[], None]) -> Iterator[tuple[Rows, Tensor]]:
        numbers = np.arange(block * self._block, (block + 1) * self._block, dtype=np.int64)
        for start in range(0, self._block, self._measuring.batch):
            some = numbers[start : start + self._measuring.batch]
            pixels = torch.from_numpy(self._measuring.source.read(some)).permute(0, 3, 1, 2)
            yield some, levels_for(self._model, pixels)
            tick()


@torch.inference_mode()
def measure_mutual_information(task: Task) -> Findings:
    """Both estimators, each with its ceiling, for the latents that `evaluate_bound` draws.

    The batches of the first are fixed blocks of consecutive examples: the first `BATCH_MIXTURES` complete ones.
    """
    images, settings = task.measuring.count(), task.settings
    found: list[Quantity] = []
    if size := settings.mixture_batch:
        queries = min(images // size, BATCH_MIXTURES) * size
        title = f"mutual information, mixtures of {size:,} images"
        what = "mutual information within batches"
        found += _Mixtures(task, size).measure(queries, "mutual_information", title, what)
    if settings.mixture_images:
        queries = min(settings.mixture_images, images)
        title = f"mutual information, mixture of all {images:,} images"
        what = "mutual information over the split"
        found += _Mixtures(task, images).measure(queries, "mutual_information_set", title, what)
    return Findings(found)
