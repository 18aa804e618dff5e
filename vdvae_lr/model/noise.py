"""All random numbers of one pass, drawn before it from a keyed generator.

A pass takes its noise as an argument, so it is a pure function: the same key gives the same numbers, whatever the
number of processes and the batches before it, and also if a CUDA graph replays the pass. Each row is an image. Its
noise is keyed by its place among the images of a step (training) or by its example (evaluation), so it depends neither
on the other images of its batch nor on their number.

Shapes: B images, Z latent channels, R a group's resolution.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vdvae_lr.model.latent_model import LatentModel

_NUMBERS_AT_ONCE = 4096  # small models draw latents for several images at once: on a card each draw is a launch


def noise_key(*parts: int | str) -> int:
    """A generator's seed of 63 bits from the parts that name a draw, such as ("train", seed, step, place)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class PassNoise:
    """Buffers for one batch of B images: standard normal draws for the latents of the posterior.

    With `prior` also those for the latents of a pass from the prior, with `image` the uniforms of a sampled image, and
    with `cutoff` one uniform (B, 1, 1, 1) that chooses what is read of an image (`losses/reading.py`). The last comes
    after all others, so that they do not depend on it.
    """

    def __init__(
        self,
        model: LatentModel,
        batch: int,
        device: torch.device,
        *,
        prior: bool = False,
        image: bool = True,
        cutoff: bool = False,
    ) -> None:
        count = len(model.latent_shapes)
        normal_shapes = list(model.latent_shapes) * (2 if prior else 1)
        uniform_shapes = model.image_noise_shapes if image else ()
        latents = sum(map(math.prod, model.latent_shapes))
        self._images_at_once = 1 << max(0, (_NUMBERS_AT_ONCE // latents).bit_length() - 1)
        self._generator = torch.Generator(device)
        self._normal = torch.empty(batch, sum(map(math.prod, normal_shapes)), device=device)
        self._uniform = torch.empty(batch, sum(map(math.prod, uniform_shapes)), device=device)
        views = _group_views(self._normal, normal_shapes)
        self.posterior: Sequence[Tensor] = views[:count]
        self.prior: Sequence[Tensor] | None = views[count:] if prior else None
        parts = self._uniform.split(list(map(math.prod, uniform_shapes)), dim=1)
        uniforms = [part.unflatten(1, shape) for part, shape in zip(parts, uniform_shapes, strict=True)]
        self.image: Sequence[Tensor] | None = uniforms or None
        self.cutoff: Tensor | None = torch.empty(batch, 1, 1, 1, device=device) if cutoff else None

    def draw(self, *name: int | str, first: int = 0) -> None:
        """Fill row i with what the draw of this name has for the place `first` + i, whatever the number of rows.

        Places are drawn in groups of a fixed size, of which a batch may begin or end inside.
        """
        size, rows = self._images_at_once, len(self._normal)
        for group in range(first // size, -(-(first + rows) // size)):
            self._generator.manual_seed(noise_key(*name, group))
            start = group * size - first
            inside = slice(max(start, 0), min(start + size, rows))
            if inside.stop - inside.start == size:
                self._fill(inside)
                continue
            for buffer, fill in self._buffers():
                drawn = fill(buffer.new_empty(size, *buffer.shape[1:]), generator=self._generator)
                buffer[inside] = drawn[inside.start - start : inside.stop - start]

    def draw_rows(self, keys: Sequence[int]) -> None:
        """Fill row i from keys[i], so that an example's noise does not depend on its place in a batch."""
        for row, key in enumerate(keys):
            self._generator.manual_seed(key)
            self._fill(slice(row, row + 1))

    def _fill(self, rows: slice) -> None:
        for buffer, fill in self._buffers():
            fill(buffer[rows], generator=self._generator)

    def _buffers(self) -> list[tuple[Tensor, Callable[..., Tensor]]]:
        """Every buffer with the distribution of its numbers, in the order in which they are drawn."""
        cutoffs = [] if self.cutoff is None else [self.cutoff]
        uniforms = [(buffer, Tensor.uniform_) for buffer in (self._uniform, *cutoffs)]
        return [(self._normal, Tensor.normal_), *uniforms]


def _group_views(flat: Tensor, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """(B, Σ Z·R·R) as one (B, Z, R, R) view for each group, with channels innermost, as activations have them."""
    parts = flat.split(list(map(math.prod, shapes)), dim=1)
    return [
        part.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        for part, (channels, height, width) in zip(parts, shapes, strict=True)
    ]
