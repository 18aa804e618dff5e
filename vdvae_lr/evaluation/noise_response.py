"""What noise in the latents does to the image: the visible side of posterior collapse (the paper's figures 3, 5, 6).

One posterior pass over the data gives latents z. Noise of a given variance is added to every group, to some, or to the
active latents only. The decoder is given all groups, and its mean image is compared with the clean one, that of z. In a
collapsed model the image does not move.

Shapes: B images, C channels, H W resolution, Z latent channels, R a group's resolution, K conditions, M numbers that
the measures give for an image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.activity import ActiveLatents
from vdvae_lr.evaluation.batches import ExampleNoise, Examples, posterior_pass
from vdvae_lr.evaluation.moments import Moments, PerExample
from vdvae_lr.evaluation.task import NoiseUnit
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World

RESPONSE_NOISE = "noise response"  # the purpose in noise keys
UNIT_WORDS: dict[NoiseUnit, str] = {"raw": "", "prior_scale": ", in prior's scale"}
ImageMeasure = Callable[[Tensor, Tensor], Tensor]
"""An image and its clean one, (B, C, H, W) each on the target scale → one number for each image, (B,), or several,
(B, …)."""


@dataclass(frozen=True)
class LatentNoise:
    """One condition: how much noise, and where."""

    variance: float
    unit: NoiseUnit = "raw"
    """raw: in the latents' own scale; prior_scale: also multiplied by each latent's σ_p in the clean pass, so that
    models with other latent scales can be compared."""
    groups: frozenset[int] | None = None
    """The latent groups that get noise, top-down from 0; None: all."""
    active: ActiveLatents | None = None
    """The latents of these groups that get noise; None: all."""

    def added_to(self, number: int, prior: DiagonalGaussian, draw: Tensor) -> Tensor | float:
        """The noise of group `number`, (B, Z, R, R), from a standard normal `draw`."""
        if self.groups is not None and number not in self.groups:
            return 0.0
        prior_scale = prior.log_scale.exp() if self.unit == "prior_scale" else 1.0
        noise = self.variance**0.5 * prior_scale * draw.to(prior.mean.dtype)
        return noise if self.active is None else noise * self.active.masks[number]


def check_finite_images(changes: Tensor, variances: Sequence[float]) -> None:
    """Refuse noise so large that images are not finite (raises UnmeasurableError). Waits for the device.

    `changes` (K,) measures the images under each of K conditions. It is not finite if an image is not, and must be the
    same on every process.
    """
    for variance, finite in zip(variances, changes.isfinite().tolist(), strict=True):
        if not finite:
            raise UnmeasurableError(
                f"latent noise of variance {variance:g} makes images that are not finite; give less noise."
            )


def noisy_images(
    model: LatentModel, clean: LatentPass, noise: Sequence[Tensor], conditions: Sequence[LatentNoise]
) -> Tensor:
    """D(z + noise) under each of K conditions in one pass: (K, B, C, H, W) on the target scale.

    `clean` gives z. `noise` is standard normal, (B, Z, R, R) for each group, and the same for every condition.
    """
    latents = []
    for number, (latent, prior, draw) in enumerate(zip(clean.latents, clean.priors, noise, strict=True)):
        latents.append(torch.cat([latent + condition.added_to(number, prior, draw) for condition in conditions]))
    batch = len(clean.latents[0])
    return model.decode(latents).likelihood.mean().unflatten(0, (len(conditions), batch))


def image_rms(image: Tensor, clean: Tensor) -> Tensor:
    """Root mean square difference of images (B, C, H, W) on the target scale, in units of 255 levels: (B,)."""
    return image_square(image, clean).sqrt()


def image_square(image: Tensor, clean: Tensor) -> Tensor:
    """Mean square difference, as in `image_rms`: (B,)."""
    return ((image - clean) / 2).square().flatten(1).mean(1)


class CleanPass:
    """The pass that gives z, and the noise of its examples. Arguments as in `posterior_pass`."""

    def __init__(self, model: LatentModel, pixels: Tensor, examples: Examples, seed: int) -> None:
        self._model = model
        self._passed = posterior_pass(model, pixels, examples, seed)
        self._noise = ExampleNoise(model, RESPONSE_NOISE, seed).draw(examples).posterior
        self.image = self._passed.likelihood.mean()

    def images(self, conditions: Sequence[LatentNoise], at_once: int) -> Iterator[Tensor]:
        """(B, C, H, W) for each condition. One decoder pass makes at most `at_once` images, or B if B is more."""
        disturbing = [condition for condition in conditions if condition.variance > 0]
        together = max(1, at_once // len(self.image))
        decoded = (
            image
            for start in range(0, len(disturbing), together)
            for image in noisy_images(self._model, self._passed, self._noise, disturbing[start : start + together])
        )
        for condition in conditions:
            yield next(decoded) if condition.variance > 0 else self.image


@torch.inference_mode()
def response_moments(
    model: LatentModel,
    batches: Iterable[Batch],
    conditions: Sequence[LatentNoise],
    measures: Sequence[ImageMeasure],
    *,
    seed: int,
    world: World,
    at_once: int = 0,
    numbers: int | None = None,
    kept: PerExample | None = None,
) -> Moments:
    """The M numbers of all measures of noisy against clean images under each of K conditions: (K · M,), conditions
    varying slowest.

    Every process must call this, with its share of the images as `batches`. One decoder pass makes `at_once` images,
    or those of one batch and condition if they are more. This changes no number. `numbers` is M; None: each measure
    gives one. `kept` gets each image's numbers under the first conditions, as many as it has columns.
    """
    moments = Moments((len(conditions) * (numbers or len(measures)),), model.device)
    for batch in batches:
        clean = CleanPass(model, batch.pixels, batch.indices, seed)
        images = clean.images(conditions, at_once)
        values = [measure(image, clean.image).double() for image in images for measure in measures]
        row = torch.cat([each.reshape(len(each), -1) for each in values], dim=1)
        moments.add(row)
        if kept is not None:
            kept.add(batch.indices, row[:, : kept.values.shape[1]])
    moments.all_reduce_(world)
    if kept is not None:
        kept.all_reduce_(world)
    return moments
