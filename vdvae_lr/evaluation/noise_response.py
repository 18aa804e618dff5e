"""What noise in the latents does to the image: the visible side of posterior collapse.

One pass over the data gives latents z; noise of a given variance is added to every group at once, all groups are given
to the decoder, and the mixture's mean is looked at. In a collapsed model the image does not move.

Shapes: B images, C channels, H W resolution, Z latent channels, R a group's resolution.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.distributed import World
from vdvae_lr.evaluation.batches import EvaluationBatch, ExampleNoise, Examples, levels_for, model_device
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE
from vdvae_lr.evaluation.images import Pictures, to_levels
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.model.decoder import Given, TopDownPass
from vdvae_lr.model.vae import VDVAE

NoiseUnit = Literal["raw", "prior_scale"]
RESPONSE_NOISE = "noise response"


@dataclass(frozen=True)
class NoiseResponse:
    """Pictures by variance, and how far they are from those without noise."""

    variances: tuple[float, ...]
    pictures: tuple[Pictures, ...]
    """(B, H, W, C) uint8 for each variance."""
    rms: tuple[float, ...]
    """Root mean square difference of an image from its clean one, in units of 255 levels, averaged over the images."""
    rms_standard_errors: tuple[float, ...]
    """Over the images; NaN for a single one."""


def mean_image(model: VDVAE, passed: TopDownPass) -> Tensor:
    """D(z) of a pass: (B, C, H, W) on the target scale."""
    return model.likelihood(passed.output).mean()


def noisy_image(model: VDVAE, clean: TopDownPass, noise: Sequence[Tensor], variance: float, unit: NoiseUnit) -> Tensor:
    """D(z + √variance · noise), every group given: (B, C, H, W) on the target scale.

    Args:
        model: that made `clean`.
        clean: the pass whose latents are disturbed.
        noise: standard normal, (B, Z, R, R) a group.
        variance: of the added noise.
        unit: raw: in the latents' own scale; prior_scale: noise of each latent is also multiplied by its σ_p in the
            clean pass, so that models with other latent scales can be compared.
    """
    scale = variance**0.5
    latents = []
    for group, draw in zip(clean.groups, noise, strict=True):
        prior_scale = group.prior.log_scale.exp() if unit == "prior_scale" else 1.0
        latents.append(Given(group.latent + scale * prior_scale * draw.to(group.latent.dtype)))
    return mean_image(model, model.top_down(latents, clean.output.shape[0]))


def image_rms(image: Tensor, clean: Tensor) -> Tensor:
    """Root mean square difference of images (B, C, H, W) on the target scale, in units of 255 levels: (B,)."""
    return ((image - clean) / 2).square().flatten(1).mean(1).sqrt()


def _clean_pass_and_noise(
    model: VDVAE, pixels: Tensor, examples: Examples, seed: int
) -> tuple[TopDownPass, Sequence[Tensor]]:
    posterior = ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    clean = model.infer(levels_for(model, pixels), posterior)
    return clean, ExampleNoise(model, RESPONSE_NOISE, seed).draw(examples).posterior


@torch.inference_mode()
def noise_response(
    model: VDVAE,
    pixels: Tensor,
    variances: Sequence[float] = (0.0, 0.3, 0.4),
    *,
    seed: int,
    unit: NoiseUnit = "raw",
    examples: Examples | None = None,
) -> NoiseResponse:
    """Reconstructions under latent noise; models of one architecture get the same noise, keyed by example.

    Args:
        model: on its device.
        pixels: (B, C, H, W) uint8.
        variances: of the noise; 0 gives the clean reconstruction.
        seed: of posterior draws (those of `evaluate_bound`) and noise.
        unit: as in `noisy_image`.
        examples: the images' numbers in their split, for the noise's key; 0 … B−1 when left out.
    """
    clean_pass, noise = _clean_pass_and_noise(model, pixels, range(len(pixels)) if examples is None else examples, seed)
    clean = mean_image(model, clean_pass)
    images = [noisy_image(model, clean_pass, noise, v, unit) if v > 0 else clean for v in variances]
    moments = Moments((len(images),), model_device(model))
    moments.add(torch.stack([image_rms(image, clean) for image in images], dim=1))
    return NoiseResponse(
        tuple(variances),
        tuple(to_levels(model.pixel_scale, image) for image in images),
        tuple(moments.mean.tolist()),
        tuple(moments.standard_error.tolist()),
    )


@torch.inference_mode()
def measure_noise_response(
    model: VDVAE,
    batches: Iterable[EvaluationBatch],
    conditions: Sequence[tuple[NoiseUnit, float]],
    *,
    seed: int,
    world: World,
) -> Moments:
    """RMS image change for each (unit, variance) of `conditions`, over all examples of all processes' `batches`.

    Same passes, noise and unit of the result as `noise_response`, without the pictures.
    """
    moments = Moments((len(conditions),), model_device(model))
    for batch in batches:
        clean_pass, noise = _clean_pass_and_noise(model, batch.pixels, batch.indices, seed)
        clean = mean_image(model, clean_pass)
        images = [noisy_image(model, clean_pass, noise, variance, unit) for unit, variance in conditions]
        moments.add(torch.stack([image_rms(image, clean) for image in images], dim=1))
    moments.all_reduce_(world)
    return moments
