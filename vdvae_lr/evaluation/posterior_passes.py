"""One posterior pass over every image, for all measurements that look at the same draw.

Shapes: B images, C channels, H W resolution, L latent groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, EvaluationBatch, ExampleNoise, Examples, levels_for
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World


@dataclass(frozen=True)
class Seen:
    """One batch of images and its pass with z ~ q(z|x)."""

    examples: Examples
    """(B,) numbers of the images in their split."""
    levels: Tensor
    """(B, C, H, W), 0 … 255."""
    target: Tensor
    """The same on the likelihood's scale."""
    passed: LatentPass
    image_noise: Sequence[Tensor] | None
    """Noise of one sampled image each, where the reader of passes was asked to draw it."""


class Reader(Protocol):
    """A measurement that takes in passes."""

    def add(self, seen: Seen) -> object:
        """Take in one batch."""

    def all_reduce_(self, world: World) -> None:
        """Put the processes' numbers together; every process must call this."""


@torch.inference_mode()
def read_passes(
    model: LatentModel,
    batches: Iterable[EvaluationBatch],
    readers: Sequence[Reader],
    *,
    seed: int,
    world: World,
    reencoding: bool = False,
) -> None:
    """Show every image's posterior pass to every reader, in the autocast context of the caller.

    The draws depend on the seed and on the example's number only: neither on the batch size, nor on the order of the
    examples, nor on the number of processes.

    Args:
        model: on its device.
        batches: this process's share of the split; together the processes have every example once.
        readers: what takes the passes in.
        seed: of the noise, with the example's number.
        world: whose processes' shares are put together; all of them must call this.
        reencoding: keep the contexts of the passes, and draw the noise of a sampled image.
    """
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed, image=reencoding)
    for batch in batches:
        levels, draws = levels_for(model, batch.pixels), noise.draw(batch.indices)
        passed = model.infer(levels, draws.posterior, keep_contexts=reencoding)
        seen = Seen(batch.indices, levels, model.pixel_scale.target_from_levels(levels), passed, draws.image)
        for reader in readers:
            reader.add(seen)
    for reader in readers:
        reader.all_reduce_(world)
