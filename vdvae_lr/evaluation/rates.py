"""How the rate spreads over latent groups and inputs: where, and for whom, the posterior collapses.

The paper calls an input x ε-collapsed when KL(q(z|x)‖p(z)) ≤ ε(x). The least ε that calls x so is its own KL(x). So the
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

from vdvae_lr.evaluation.bound import BoundReader
from vdvae_lr.evaluation.posterior_passes import Seen
from vdvae_lr.evaluation.quantities import Findings, GroupMoments, InputRates, PerExample, Quantity
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World

PROBABILITIES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
NEAREST_COLLAPSE = 12  # inputs that are named, and shown
_Numbers = npt.NDArray[np.float64]


class RatesReader:
    """Takes in passes: the bound in its parts, mean σ_p, and how the rate spreads over the inputs.

    Args:
        model: on its device.
        images: how many there are over all processes.
        content_dimensions: state bound, distortion and rate on this number of dimensions as well (784 for 28×28 images
            padded to 32×32); 0: do not.
    """

    def __init__(self, model: LatentModel, images: int, content_dimensions: int = 0) -> None:
        self._model = model
        self._content_dimensions = content_dimensions
        self._bound = BoundReader(model)
        self._scales = GroupMoments(model.resolutions, model.device)
        self._by_input = PerExample(images, len(model.resolutions), model.device)

    def add(self, seen: Seen) -> None:
        """Take in one batch."""
        self._by_input.add(seen.examples, self._bound.add(seen))
        self._scales.add(group_scale_sums(seen.passed.priors))

    def all_reduce_(self, world: World) -> None:
        """Put the processes' numbers together; every process must call this."""
        for part in (self._bound, self._scales, self._by_input):
            part.all_reduce_(world)

    def findings(self) -> Findings:
        """Quantities `negative_elbo`, `distortion`, `rate` (also in bits, and on the content alone), `prior_scale`."""
        dimensions, content = self._model.dimensions, self._content_dimensions
        quantities = self._bound.quantities(dimensions)
        if content:
            quantities += self._bound.quantities(content, "_content")
        latents = [math.prod(shape) for shape in self._model.latent_shapes]
        sums = self._scales.quantity("prior_scale", "mean prior scale", "")
        scale = _per_latent(sums, latents, self._model.resolutions)
        return Findings((*quantities, scale), input_rates(self._by_input.values.cpu().numpy() / dimensions))


def group_scale_sums(priors: Sequence[DiagonalGaussian]) -> Tensor:
    """σ_p summed over the latents of each group: (B, L)."""
    return torch.stack([prior.log_scale.double().exp().flatten(1).sum(1) for prior in priors], dim=1)


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
