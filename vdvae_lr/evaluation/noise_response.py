"""What noise in the latents does to the image: the visible side of posterior collapse (the paper's figures 3, 5, 6).

One pass over the data gives latents z; noise of a given variance is added to every group, or to some, all groups are
given to the decoder, and the mixture's mean is looked at. In a collapsed model the image does not move.

Shapes: B images, C channels, H W resolution, Z latent channels, R a group's resolution, K conditions, M measures.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, EvaluationBatch, ExampleNoise, Examples, levels_for
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World

NoiseUnit = Literal["raw", "prior_scale"]
ImageMeasure = Callable[[Tensor, Tensor], Tensor]
"""An image and its clean one, (B, C, H, W) each on the target scale → (B,)."""
RESPONSE_NOISE = "noise response"


@dataclass(frozen=True)
class LatentNoise:
    """One condition: how much noise, and where."""

    variance: float
    unit: NoiseUnit = "raw"
    """raw: in the latents' own scale; prior_scale: noise of each latent is also multiplied by its σ_p in the clean
    pass, so that models with other latent scales can be compared."""
    groups: frozenset[int] | None = None
    """Which latent groups it is added to, top-down from 0; None: all."""

    def added_to(self, number: int, prior: DiagonalGaussian, draw: Tensor) -> Tensor | float:
        """What group `number` gets, (B, Z, R, R), made of a standard normal `draw`."""
        if self.groups is not None and number not in self.groups:
            return 0.0
        prior_scale = prior.log_scale.exp() if self.unit == "prior_scale" else 1.0
        return self.variance**0.5 * prior_scale * draw.to(prior.mean.dtype)


def check_variances(variances: Sequence[float], setting: str = "noise_variances") -> None:
    """Refuse what cannot be variances to measure at; `setting` is what a person calls them.

    Raises:
        InputError: none is given, one is negative, infinite or NaN, or one is there twice.
    """
    if not variances:
        raise InputError("there is no noise variance to measure at; give at least one, such as 0.3.")
    for variance in variances:
        if not 0 <= variance < math.inf:
            raise InputError(f"a noise variance is {variance}; it must be a number from 0 up.")
    if len(set(variances)) < len(variances):
        raise InputError(f"{setting} are {', '.join(f'{variance:g}' for variance in variances)}; name each once.")


def check_finite_images(changes: Tensor, variances: Sequence[float]) -> None:
    """Refuse noise so large that images are no numbers; waits for the device.

    Args:
        changes: some measure of the images under each of K conditions, (K,), not finite where an image is not; the
            same on every process.
        variances: of the conditions, K.

    Raises:
        UnmeasurableError: names the variance.
    """
    for variance, sound in zip(variances, changes.isfinite().tolist(), strict=True):
        if not sound:
            raise UnmeasurableError(
                f"latent noise of variance {variance:g} makes images that are no numbers; give less noise."
            )


def noisy_images(
    model: LatentModel, clean: LatentPass, noise: Sequence[Tensor], conditions: Sequence[LatentNoise]
) -> Tensor:
    """D(z + noise) under each of K conditions, every group given, in one pass: (K, B, C, H, W) on the target scale.

    Args:
        model: that made `clean`.
        clean: the pass whose latents are disturbed.
        noise: standard normal, (B, Z, R, R) a group; every condition has the same.
        conditions: K of them.
    """
    latents = []
    for number, (latent, prior, draw) in enumerate(zip(clean.latents, clean.priors, noise, strict=True)):
        latents.append(torch.cat([latent + condition.added_to(number, prior, draw) for condition in conditions]))
    batch = len(clean.latents[0])
    return model.decode(latents).likelihood.mean().unflatten(0, (len(conditions), batch))


def image_rms(image: Tensor, clean: Tensor) -> Tensor:
    """Root mean square difference of images (B, C, H, W) on the target scale, in units of 255 levels: (B,)."""
    return ((image - clean) / 2).square().flatten(1).mean(1).sqrt()


class CleanPass:
    """The pass that every condition disturbs, with the noise of its examples."""

    def __init__(self, model: LatentModel, pixels: Tensor, examples: Examples, seed: int) -> None:
        posterior = ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
        self._model = model
        self._passed = model.infer(levels_for(model, pixels), posterior)
        self._noise = ExampleNoise(model, RESPONSE_NOISE, seed).draw(examples).posterior
        self.image = self._passed.likelihood.mean()

    def images(self, conditions: Sequence[LatentNoise], at_once: int) -> Iterator[Tensor]:
        """(B, C, H, W) for each condition, decoded in passes of at most `at_once` images (or of B, where B is more)."""
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
    batches: Iterable[EvaluationBatch],
    conditions: Sequence[LatentNoise],
    measures: Sequence[ImageMeasure],
    *,
    seed: int,
    world: World,
    at_once: int = 0,
) -> Moments:
    """Every measure of noisy against clean images under every condition, over all processes' `batches`: (K · M,).

    Args:
        model: on its device.
        batches: this process's share of the images.
        conditions: K of them; neighbours share a decoder pass where `at_once` allows it.
        measures: M of them, which vary fastest in the result.
        seed: of posterior draws and noise, as in `noise_response`.
        world: whose processes' shares are put together; all of them must call this.
        at_once: images in one decoder pass; less than a batch: one condition at a time. Changes no number.
    """
    moments = Moments((len(conditions) * len(measures),), model.device)
    for batch in batches:
        clean = CleanPass(model, batch.pixels, batch.indices, seed)
        images = clean.images(conditions, at_once)
        values = [measure(image, clean.image).double() for image in images for measure in measures]
        moments.add(torch.stack(values, dim=1))
    moments.all_reduce_(world)
    return moments
