"""All random numbers of one pass, drawn ahead from a keyed generator.

A pass takes its noise as an argument, so that it is a pure function: the same key gives the same numbers whatever the
number of processes, the micro-batches before it, or whether the pass is replayed from a CUDA graph. Rows are images, so
noise can be keyed by micro-batch (training) or by example (evaluation).

Shapes: B images, Z latent channels, R a group's resolution, K mixture components, C channels, H W image.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from vdvae_lr.model.logistic_mixture import MixtureNoise
from vdvae_lr.model.vdvae.vae import VDVAE


def noise_key(*parts: int | str) -> int:
    """A 63-bit generator seed from anything that names a draw, such as ("train", seed, step, micro_batch)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class PassNoise:
    """Buffers for one batch: `posterior` and `prior` latent draws, and the uniforms of one sampled image.

    Args:
        model: gives the shapes.
        batch: B.
        device: where the noise is drawn and used.
        prior: also draw latents for a pass from the prior.
        image: also draw the uniforms of a sampled image.
    """

    def __init__(
        self, model: VDVAE, batch: int, device: torch.device, *, prior: bool = False, image: bool = True
    ) -> None:
        config = model.config
        pixels = config.image_size**2
        latents = [shape[0] * shape[1] * shape[2] for shape in model.latent_shapes]
        self._generator = torch.Generator(device)
        self._normal = torch.empty(batch, sum(latents) * (2 if prior else 1), device=device)
        self._uniform = torch.empty(
            batch, pixels * (config.num_mixtures + config.image_channels) * image, device=device
        )
        views = _group_views(self._normal, list(model.latent_shapes) * (2 if prior else 1))
        self.posterior: Sequence[Tensor] = views[: len(latents)]
        self.prior: Sequence[Tensor] | None = views[len(latents) :] if prior else None
        self.image: MixtureNoise | None = None
        if image:
            component, position = torch.split(
                self._uniform, [pixels * config.num_mixtures, pixels * config.image_channels], dim=1
            )
            side = (config.image_size, config.image_size)
            self.image = MixtureNoise(component.view(batch, -1, *side), position.view(batch, -1, *side))

    def draw(self, key: int) -> None:
        """Fill every buffer from one key."""
        self._generator.manual_seed(key)
        self._normal.normal_(generator=self._generator)
        self._uniform.uniform_(generator=self._generator)

    def draw_rows(self, keys: Sequence[int]) -> None:
        """Fill row i from keys[i]: an example's noise does not depend on its place in a batch."""
        for row, key in enumerate(keys):
            self._generator.manual_seed(key)
            self._normal[row].normal_(generator=self._generator)
            self._uniform[row].uniform_(generator=self._generator)


def _group_views(flat: Tensor, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """(B, Σ Z·R·R) as one (B, Z, R, R) view a group, channels innermost like the activations they meet."""
    offsets = [0]
    for channels, height, width in shapes:
        offsets.append(offsets[-1] + channels * height * width)
    return [
        flat[:, start:end].reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        for (start, end), (channels, height, width) in zip(pairwise(offsets), shapes, strict=True)
    ]
