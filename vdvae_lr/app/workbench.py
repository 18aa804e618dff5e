"""What the page of `vdvae-lr app` shows: each view is one picture, in which the models stand below one another.

Every model gets the same noise. A view of images shows the visitor's own image first, if there is one; without any
image it is None.

Shapes: B images, C channels (1 or 3), H W resolution, L latent groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.task import NoiseUnit
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.evaluation_pictures import noise_picture
from vdvae_lr.pictures.image_files import read_image
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.interpolating import interpolate
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.pictures.reconstructing import reconstruct
from vdvae_lr.pictures.sampling import sample
from vdvae_lr.pictures.swapping import swap

_SAMPLES = 8
_STEPS = 8  # of an interpolation, with both ends


@dataclass(frozen=True)
class Workbench:
    """Models of one architecture by name, and images to begin with: (B, H, W, C) uint8; B may be 0."""

    models: Mapping[str, LatentModel]
    examples: Pictures

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The resolution of each latent group, top-down: (L,)."""
        return next(iter(self.models.values())).resolutions

    def read(self, path: str) -> tuple[Pictures, str]:
        """The image in a file, (H, W, C), and in words what had to be done to it (raises InputError if unreadable)."""
        found = read_image(Path(path), next(iter(self.models.values())))
        return found.picture, found.change

    def numbered(self) -> Image.Image:
        """The examples with their numbers."""
        return picture_grid([self.examples], [""], [str(number) for number in range(len(self.examples))])

    def under_noise(
        self,
        own: Pictures | None,
        variance: float,
        unit: NoiseUnit,
        groups: Sequence[int],
        differences: bool,
        seed: int,
    ) -> Image.Image | None:
        """The images without and with noise in some groups, as `noise_picture` makes them."""
        images = self._images(own)
        if not len(images):
            return None
        return noise_picture(
            self.models,
            torch.from_numpy(images).permute(0, 3, 1, 2),
            variances=(0.0, variance) if variance else (0.0,),
            units=(unit,),
            seed=seed,
            groups=groups,
            differences=differences,
        )

    def from_first_groups(self, own: Pictures | None, count: int, temperature: float, seed: int) -> Image.Image | None:
        """The images, and what the first groups keep of them; the other groups come from the prior."""
        images = self._images(own)
        if not len(images):
            return None
        kept = {
            name: reconstruct(model, images, first_groups=count, temperature=temperature, seed=seed)
            for name, model in self.models.items()
        }
        return _rows({"image": images} | kept)

    def samples(self, seed: int, *temperatures: float) -> Image.Image:
        """Pictures from the prior, with a temperature for each of the L groups."""
        return _rows({n: sample(m, _SAMPLES, temperature=temperatures, seed=seed) for n, m in self.models.items()})

    def pair(self, a: Pictures | None, b: Pictures | None) -> Pictures | None:
        """Two images (2, H, W, C), or None if there is none at all.

        Raises:
            InputError: one of them is the visitor's own, and there is none.
        """
        if a is not None and b is not None:
            return np.stack([a, b])
        if not len(self.examples):
            return None
        raise InputError("you have not added an image; add one above, or choose a number.")

    def swapped(self, pair: Pictures | None, count: int) -> Image.Image | None:
        """Both ways to take the first groups from one image of a pair and the others from the other one."""
        if pair is None:
            return None
        mixed = {name: swap(model, pair, first_groups=count) for name, model in self.models.items()}
        columns = ["A", "first of A,\nothers of B", "first of B,\nothers of A", "B"]
        return _rows({n: np.stack([m[0, 0], m[0, 1], m[1, 0], m[1, 1]]) for n, m in mixed.items()}, columns)

    def between(self, pair: Pictures | None) -> Image.Image | None:
        """The way from the first image of a pair to the second."""
        if pair is None:
            return None
        return _rows({n: interpolate(m, pair[0], pair[1], steps=_STEPS) for n, m in self.models.items()})

    def _images(self, own: Pictures | None) -> Pictures:
        return self.examples if own is None else np.concatenate([own[None], self.examples])


def _rows(rows: Mapping[str, Pictures], columns: Sequence[str] = ()) -> Image.Image:
    return picture_grid(list(rows.values()), list(rows), columns)
