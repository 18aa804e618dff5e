"""The images that evaluation reads, their noise, and one posterior pass over each image for all that look at it.

Noise depends on the example's number and not on its batch or process.

Shapes: B images, C channels, H W resolution, Z latent channels, R a group's resolution.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

POSTERIOR_NOISE = "evaluate"  # the purpose in noise keys: all measurements of posterior latents share these draws
Examples = Sequence[int] | npt.NDArray[np.int64]


class ExampleNoise:
    """The noise of a pass over some examples. The noise of an example is keyed by (purpose, seed, its number).

    `buffers` are `prior` and `image` as `PassNoise` takes them; both are off if they are left out.
    """

    def __init__(self, model: LatentModel, purpose: str, seed: int, **buffers: bool) -> None:
        self._model = model
        self._purpose = purpose
        self._seed = seed
        self._buffers: dict[str, Any] = {"prior": False, "image": False} | buffers

    def draw(self, examples: Examples, into: PassNoise | None = None) -> PassNoise:
        """Noise for B examples, one row each; `into` is noise of an earlier call, with B rows or more, to replace."""
        noise = into or PassNoise(self._model, len(examples), self._model.device, **self._buffers)
        noise.draw_rows([noise_key(self._purpose, self._seed, int(example)) for example in examples])
        return noise


def levels_for(model: LatentModel, pixels: Tensor) -> Tensor:
    """Stored pixels (B, C, H, W) uint8 → levels in the model's number format, on its device."""
    return pixels.to(model.weight)


@torch.no_grad()
def posterior_pass(
    model: LatentModel, pixels: Tensor, examples: Examples, seed: int, *, keep_contexts: bool = False
) -> LatentPass:
    """A pass with one posterior draw of each image (B, C, H, W) uint8, the draw that all measurements share."""
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    return model.infer(levels_for(model, pixels), noise, keep_contexts=keep_contexts)


@dataclass(frozen=True)
class Seen:
    """One batch of images and its pass with z ~ q(z|x)."""

    examples: Examples
    """(B,) numbers of the images in their split."""
    levels: Tensor
    """(B, C, H, W), 0 … 255."""
    target: Tensor
    """The same images on the likelihood's scale."""
    passed: LatentPass
    image_noise: Sequence[Tensor] | None
    """Noise for one sampled image of each; None unless it was asked for."""


@torch.no_grad()
def posterior_passes(
    model: LatentModel, batches: Iterable[Batch], seed: int, *, reencoding: bool = False
) -> Iterator[Seen]:
    """A posterior pass over each batch, in the caller's autocast context.

    The draws depend on the seed and the example's number only, and not on the batches or the number of processes.
    `reencoding` keeps the contexts of the passes, and draws the noise of a sampled image.
    """
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed, image=reencoding)
    for batch in batches:
        levels, draws = levels_for(model, batch.pixels), noise.draw(batch.indices)
        passed = model.infer(levels, draws.posterior, keep_contexts=reencoding)
        yield Seen(batch.indices, levels, model.pixel_scale.target_from_levels(levels), passed, draws.image)


class Statistic(Protocol):
    """Something that is added up over images, on every process by itself."""

    def all_reduce_(self, world: World) -> None:
        """Merge the statistics of all processes. Every process must call this."""


class Reader(Protocol):
    """A measurement that looks at posterior passes."""

    @property
    def statistics(self) -> Iterable[Statistic]:
        """All that it has added up."""

    def add(self, seen: Seen) -> object:
        """Take in one batch."""


@torch.inference_mode()
def read_passes(
    model: LatentModel,
    batches: Iterable[Batch],
    readers: Sequence[Reader],
    *,
    seed: int,
    world: World,
    reencoding: bool = False,
) -> None:
    """Show the posterior pass of every image to every reader. Then merge the statistics of all processes.

    Every process must call this, with its share of the images as `batches`. Other arguments as `posterior_passes`.
    """
    for seen in posterior_passes(model, batches, seed, reencoding=reencoding):
        for reader in readers:
            reader.add(seen)
    for reader in readers:
        for statistic in reader.statistics:
            statistic.all_reduce_(world)
