"""The evidence lower bound of a whole split: every example once, with noise of its own.

The number does not depend on batch size, on the order of the examples, or on the number of processes. Shapes: B images,
L latent groups.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import EvaluationBatch, ExampleNoise, levels_for
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World

POSTERIOR_NOISE = "evaluate"  # the purpose in the noise key: every measurement from posterior latents shares its draws


@dataclass(frozen=True)
class Bound:
    """Averages over a split, in nats/dim (nats per image divided by `dimensions`)."""

    examples: int
    dimensions: int
    """What 'per dim' divides by."""
    negative_elbo: float
    """rate + distortion: an upper bound on −log p(x)."""
    standard_error: float
    """Of `negative_elbo` over the examples; NaN for a single one."""
    rate: float
    distortion: float
    group_rates: tuple[float, ...]
    """The rate of each latent group, top-down; they sum to `rate`."""

    @property
    def negative_elbo_bits_per_dim(self) -> float:
        """`negative_elbo` in bits/dim."""
        return self.negative_elbo / math.log(2)

    @property
    def standard_error_bits_per_dim(self) -> float:
        """`standard_error` in bits/dim."""
        return self.standard_error / math.log(2)


def bound_nats(passed: LatentPass, target: Tensor) -> tuple[Tensor, Tensor]:
    """Rates by group (B, L) and distortion (B,) in nats per image; `target` is on the likelihood's scale."""
    rates = group_rates_nats(passed.posteriors, passed.priors)
    return rates, distortion_nats(passed.likelihood.log_prob(target))


@torch.inference_mode()
def evaluate_bound(model: LatentModel, batches: Iterable[EvaluationBatch], *, seed: int, world: World) -> Bound:
    """The bound over all examples of all processes' `batches`, in the autocast context of the caller.

    Args:
        model: on its device.
        batches: this process's share of the split; together the processes have every example once.
        seed: of the noise, with the example's number.
        world: whose processes' shares are put together; all of them must call this.

    Raises:
        InputError: there was no example at all.
    """
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed)
    moments = Moments((3 + len(model.latent_shapes),), model.device)
    for batch in batches:
        levels = levels_for(model, batch.pixels)
        passed = model.infer(levels, noise.draw(batch.indices).posterior)
        rates, distortion = bound_nats(passed, model.pixel_scale.target_from_levels(levels))
        rate = rates.sum(1)
        moments.add(torch.cat([torch.stack([rate + distortion, rate, distortion], dim=1), rates], dim=1))
    moments.all_reduce_(world)
    return _bound_of(moments, model.dimensions)


def _bound_of(moments: Moments, dimensions: int) -> Bound:
    require_examples(moments)
    negative_elbo, rate, distortion, *group_rates = (moments.mean / dimensions).tolist()
    return Bound(
        examples=moments.count,
        dimensions=dimensions,
        negative_elbo=negative_elbo,
        standard_error=moments.standard_error[0].item() / dimensions,
        rate=rate,
        distortion=distortion,
        group_rates=tuple(group_rates),
    )


def require_examples(moments: Moments) -> None:
    """Refuse to report on nothing (raises InputError)."""
    if moments.count == 0:
        raise InputError("there are no images to evaluate on; choose a split that has some.")
