"""The bound in its parts, by latent group and by input: where in the hierarchy, and for whom, the posterior collapses.

The paper calls an input x ε-collapsed when KL(q(z|x)‖p(z)) ≤ ε(x). The least ε that calls x so is its own KL(x); so the
quantile function of KL(x) over the inputs answers, for every ε, which share of them is collapsed. Here q stands for the
true posterior, and KL(x) is Σ_l KL(q(z_l|z_<l, x)‖p(z_l|z_<l)) at one draw of the latents: an unbiased estimate of it.

Shapes: B images, L latent groups, N examples.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE, bound_nats
from vdvae_lr.evaluation.document import InputRates
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import GroupMoments, PerExample, Quantity, measurements
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel

PROBABILITIES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
NEAREST_COLLAPSE = 12  # inputs that are named, and shown
_Numbers = npt.NDArray[np.float64]


@torch.inference_mode()
def measure_rates(
    model: LatentModel, measuring: Measuring, *, content_dimensions: int = 0
) -> tuple[list[Quantity], InputRates]:
    """Bound, distortion, rate and mean σ_p, and how the rate spreads over the inputs.

    Args:
        model: on its device.
        measuring: the images; all processes must call this.
        content_dimensions: state bound, distortion and rate on this number of dimensions as well (784 for 28×28 images
            padded to 32×32); 0: do not.
    """
    noise = ExampleNoise(model, POSTERIOR_NOISE, measuring.seed)
    device, resolutions = model.device, model.resolutions
    rates, scales = GroupMoments(resolutions, device), GroupMoments(resolutions, device)
    bounds = Moments((2,), device)  # −ELBO and distortion have no parts by group
    by_input = PerExample(measuring.count(), len(resolutions), device)
    for batch in measuring.batches("bound and rates"):
        levels = levels_for(model, batch.pixels)
        passed = model.infer(levels, noise.draw(batch.indices).posterior)
        nats, distortion = bound_nats(passed, model.pixel_scale.target_from_levels(levels))
        rates.add(nats)
        bounds.add(torch.stack([nats.sum(1) + distortion, distortion], dim=1))
        scales.add(group_scale_sums(passed.priors))
        by_input.add(batch.indices, nats)
    for reduced in (rates, scales, bounds, by_input):
        reduced.all_reduce_(measuring.world)
    dimensions = model.dimensions
    quantities = _bound_quantities(bounds, rates, dimensions, "")
    if content_dimensions:
        quantities += _bound_quantities(bounds, rates, content_dimensions, "_content")
    latents = [math.prod(shape) for shape in model.latent_shapes]
    scale = _per_latent(scales.quantity("prior_scale", "mean prior scale", ""), latents, resolutions)
    return [*quantities, scale], input_rates(by_input.values.cpu().numpy() / dimensions)


def group_scale_sums(priors: Sequence[DiagonalGaussian]) -> Tensor:
    """σ_p summed over the latents of each group: (B, L)."""
    return torch.stack([prior.log_scale.double().exp().flatten(1).sum(1) for prior in priors], dim=1)


def _bound_quantities(bounds: Moments, rates: GroupMoments, dimensions: int, suffix: str) -> list[Quantity]:
    on = f" on {dimensions} dimensions" if suffix else ""
    found = []
    for unit, ending, factor in (("nats/dim", "", 1 / dimensions), ("bits/dim", "_bits", 1 / dimensions / math.log(2))):
        negative_elbo, distortion = measurements(bounds, factor)
        ending = suffix + ending
        found += [
            Quantity(f"negative_elbo{ending}", f"bound (-ELBO){on}", unit, negative_elbo),
            Quantity(f"distortion{ending}", f"distortion{on}", unit, distortion),
            rates.quantity(f"rate{ending}", f"rate{on}", unit, factor),
        ]
    return found


def _per_latent(sums: Quantity, latents: Sequence[int], resolutions: Sequence[int]) -> Quantity:
    """Averages over latents from sums over them."""
    at = {level: sum(n for n, r in zip(latents, resolutions, strict=True) if r == level) for level in sums.resolutions}
    assert sums.total is not None
    return replace(
        sums,
        total=sums.total.times(1 / sum(latents)),
        groups=tuple(group.times(1 / n) for group, n in zip(sums.groups, latents, strict=True)),
        resolutions={level: measured.times(1 / at[level]) for level, measured in sums.resolutions.items()},
    )


def input_rates(rates: _Numbers, unit: str = "nats/dim") -> InputRates:
    """How rates (N, L) of N inputs and L groups are spread; of equal ones, the lower number is nearer to collapse."""
    total = rates.sum(1)
    nearest = np.argsort(total, kind="stable")[:NEAREST_COLLAPSE]
    return InputRates(
        images=len(rates),
        unit=unit,
        quantiles=_quantiles(total),
        group_quantiles=tuple(_quantiles(group) for group in rates.T),
        nearest_collapse=tuple((int(number), float(total[number])) for number in nearest),
    )


def _quantiles(values: _Numbers) -> dict[str, float]:
    with np.errstate(invalid="ignore"):  # between two infinite rates
        found = np.quantile(values, PROBABILITIES)
    return {f"{probability:g}": float(value) for probability, value in zip(PROBABILITIES, found, strict=True)}
