"""All random numbers of one pass, drawn before it from a keyed generator.

A pass takes its noise as an argument, so it is a pure function: the same key gives the same numbers, whatever the
number of processes and the batches before it, and also if a CUDA graph replays the pass. Each row is an image, so noise
can be keyed by micro-batch (training) or by example (evaluation).

Shapes: B images, Z latent channels, R a group's resolution.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vdvae_lr.model.latent_model import LatentModel


def noise_key(*parts: int | str) -> int:
    """A generator's seed of 63 bits from the parts that name a draw, such as ("train", seed, step, micro_batch)."""
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

    def draw(self, key: int) -> None:
        """Fill every buffer from one key."""
        self._generator.manual_seed(key)
        self._normal.normal_(generator=self._generator)
        self._uniform.uniform_(generator=self._generator)
        if self.cutoff is not None:
            self.cutoff.uniform_(generator=self._generator)

    def draw_rows(self, keys: Sequence[int]) -> None:
        """Fill row i from keys[i], so that an example's noise does not depend on its place in a batch."""
        for row, key in enumerate(keys):
            self._generator.manual_seed(key)
            self._normal[row].normal_(generator=self._generator)
            self._uniform[row].uniform_(generator=self._generator)
            if self.cutoff is not None:
                self.cutoff[row].uniform_(generator=self._generator)


def _group_views(flat: Tensor, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """(B, Σ Z·R·R) as one (B, Z, R, R) view for each group, with channels innermost, as activations have them."""
    parts = flat.split(list(map(math.prod, shapes)), dim=1)
    return [
        part.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        for part, (channels, height, width) in zip(parts, shapes, strict=True)
    ]
