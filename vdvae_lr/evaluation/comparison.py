"""The same measurements for several models of one architecture: same images, same noise.

Shapes: B images.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.activity import mean_prior_scale, measure_active_units
from vdvae_lr.evaluation.batches import EvaluationBatch, ExampleNoise, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE, bound_nats
from vdvae_lr.evaluation.information import information_nats, measure_information_from_samples
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.noise_response import NoiseUnit, measure_noise_response
from vdvae_lr.evaluation.quantities import Measurement, measurements
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.processes.world import World

RESPONSE_CONDITIONS: tuple[tuple[NoiseUnit, float], ...] = (
    ("raw", 0.3),
    ("raw", 0.4),
    ("prior_scale", 0.3),
    ("prior_scale", 0.4),
)
RESPONSE_EXAMPLES = 200  # each costs a top-down pass per condition, and its spread over images is small
_HELD_OUT = ("negative_elbo", "rate", "distortion", "latent_reconstruction", "recovered_mean_image", "prior_scale")


def check_comparable(models: Mapping[str, LatentModel]) -> None:
    """Refuse models that differ in anything but their weights: same noise would mean something else in each.

    Raises:
        InputError: the first setting that differs, with both models' names.
    """
    (first_name, first), *others = models.items()
    for name, model in others:
        for field in dataclasses.fields(first.config):
            ours, theirs = getattr(first.config, field.name), getattr(model.config, field.name)
            if ours != theirs:
                raise InputError(
                    f"models '{first_name}' and '{name}' differ in {field.name} ({ours!r} and {theirs!r}); "
                    "compare models of one architecture."
                )


def measure_model(model: LatentModel, measuring: Measuring) -> dict[str, Measurement]:
    """All measurements of one model, by the keys of `comparison_report.ROWS`.

    Args:
        model: on the world's device.
        measuring: the images, as many samples, and the processes; all of them must call this.
    """
    seed, world = measuring.seed, measuring.world
    return {
        **_held_out(model, measuring.batches("bound and recovered latents"), seed, world),
        **_from_samples(model, measuring),
        **_activity(model, measuring),
        **_noise_response(model, measuring.batches("noise response", RESPONSE_EXAMPLES), seed, world),
    }


def held_out_nats(model: LatentModel, levels: Tensor, noise: PassNoise) -> Tensor:
    """The measurements that share one posterior pass, (B, 6) in the order of `_HELD_OUT`; nats per image but σ_p."""
    passed = model.infer(levels, noise.posterior, keep_contexts=True)
    rates, distortion = bound_nats(passed, model.pixel_scale.target_from_levels(levels))
    rate = rates.sum(1)
    sampled = information_nats(model, passed, passed.decoded("sample", noise.image))
    from_mean = information_nats(model, passed, passed.decoded("mean", None))
    values = [rate + distortion, rate, distortion, -sampled, from_mean, mean_prior_scale(passed.priors)]
    return torch.stack([value.double() for value in values], dim=1)


@torch.inference_mode()
def _held_out(
    model: LatentModel, batches: Iterable[EvaluationBatch], seed: int, world: World
) -> dict[str, Measurement]:
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed, image=True)
    moments = Moments((len(_HELD_OUT),), model.device)
    for batch in batches:
        moments.add(held_out_nats(model, levels_for(model, batch.pixels), noise.draw(batch.indices)))
    moments.all_reduce_(world)
    found = dict(zip(_HELD_OUT, measurements(moments), strict=True))
    per_dim = 1 / model.dimensions
    return {key: value if key == "prior_scale" else value.times(per_dim) for key, value in found.items()}


def _from_samples(model: LatentModel, measuring: Measuring) -> dict[str, Measurement]:
    (found,) = measure_information_from_samples(model, measuring)
    assert found.total is not None
    return {found.key: found.total}


def _activity(model: LatentModel, measuring: Measuring) -> dict[str, Measurement]:
    found = {each.key: each.total for each in measure_active_units(model, measuring)[0] if each.total is not None}
    names = ("latents", "latents_relative", "channels", "channels_relative")
    return {f"active_{name}": found[f"active_{name}"] for name in names}


def _noise_response(
    model: LatentModel, batches: Iterable[EvaluationBatch], seed: int, world: World
) -> dict[str, Measurement]:
    moments = measure_noise_response(model, batches, RESPONSE_CONDITIONS, seed=seed, world=world)
    names = [f"noise_response_{unit}_{variance}" for unit, variance in RESPONSE_CONDITIONS]
    return dict(zip(names, measurements(moments), strict=True))
