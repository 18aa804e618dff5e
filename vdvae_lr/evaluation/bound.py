"""The evidence lower bound of a split in its parts, and how its rate spreads over latent groups and inputs.

The paper calls an input x ε-collapsed when KL(q(z|x)‖p(z)) ≤ ε(x). The least ε that calls x so is its own KL(x). So the
quantile function of KL(x) over the inputs answers, for every ε, which share of them is collapsed. Here q stands for the
true posterior, and KL(x) is Σ_l KL(q(z_l|z_<l, x)‖p(z_l|z_<l)) at one draw of the latents: an unbiased estimate of it.

Shapes: B images, L latent groups, N examples.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import Seen, Statistic, read_passes
from vdvae_lr.evaluation.group_choice import groups_by_resolution
from vdvae_lr.evaluation.moments import GroupMoments, Moments, PerExample
from vdvae_lr.evaluation.quantities import Findings, InputRates, Quantity
from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World

PROBABILITIES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
NEAREST_COLLAPSE = 12  # inputs that are named, and shown
_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """Averages over a split, in nats/dim (nats per image divided by `dimensions`)."""

    examples: int
    dimensions: int
    """What 'per dim' divides by."""
    negative_elbo: float
    """rate + distortion: an upper bound on −log p(x)."""
    standard_error: float
    """Standard error of `negative_elbo` over the examples; NaN for a single one."""
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


class BoundReader:
    """Averages −ELBO, rate and distortion over images."""

    def __init__(self, model: LatentModel) -> None:
        self._dimensions = model.dimensions
        self._rates = GroupMoments(model.resolutions, model.device)
        self._totals = Moments((2,), model.device)  # −ELBO and distortion have no parts by group
        self.statistics: Sequence[Statistic] = [self._rates, self._totals]

    def add(self, seen: Seen) -> Tensor:
        """Take in one batch; returns its rates by group and its distortion in nats per image, (B, L + 1)."""
        rates, distortion = bound_nats(seen.passed, seen.target)
        self._rates.add(rates)
        self._totals.add(torch.stack([rates.sum(1) + distortion, distortion], dim=1))
        return torch.cat([rates.double(), distortion[:, None].double()], dim=1)

    def quantities(self, dimensions: int, suffix: str = "") -> list[Quantity]:
        """−ELBO, distortion and rate in nats/dim and bits/dim, for this number of dimensions.

        `suffix` is a part of their keys. It is given if the number is not the model's own; titles then name the number.
        """
        on = f" on {dimensions} dimensions" if suffix else ""
        found = []
        units = (("nats/dim", "", 1 / dimensions), ("bits/dim", "_bits", 1 / dimensions / math.log(2)))
        for unit, bits, factor in units:
            ending = suffix + bits
            negative_elbo, distortion = self._totals.measurements(factor)
            found += [
                Quantity(f"negative_elbo{ending}", f"bound (-ELBO){on}", unit, negative_elbo),
                Quantity(f"distortion{ending}", f"distortion{on}", unit, distortion),
                self._rates.quantity(f"rate{ending}", f"rate{on}", unit, factor),
            ]
        return found

    def bound(self) -> Bound:
        """The averages in nats/dim.

        Raises:
            InputError: there was no image at all.
        """
        require_examples(self._totals)
        negative_elbo, distortion = (self._totals.mean / self._dimensions).tolist()
        rate = self._rates.quantity(factor=1 / self._dimensions)
        assert rate.total is not None
        return Bound(
            examples=self._totals.count,
            dimensions=self._dimensions,
            negative_elbo=negative_elbo,
            standard_error=self._totals.standard_error[0].item() / self._dimensions,
            rate=rate.total.value,
            distortion=distortion,
            group_rates=tuple(group.value for group in rate.groups),
        )


def evaluate_bound(model: LatentModel, batches: Iterable[Batch], *, seed: int, world: World) -> Bound:
    """The bound over all examples of all processes' `batches`; arguments as `read_passes` has them.

    Raises:
        InputError: there was no example at all.
    """
    reader = BoundReader(model)
    read_passes(model, batches, [reader], seed=seed, world=world)
    return reader.bound()


def require_examples(moments: Moments) -> None:
    """Refuse to report on nothing (raises InputError)."""
    if moments.count == 0:
        raise InputError("there are no images to evaluate on; choose a split that has some.")


class RatesReader:
    """The bound in its parts, mean σ_p, and how the rate spreads over the inputs.

    `images` is their number over all processes. Bound, distortion and rate are also stated on `content_dimensions`
    dimensions, unless that is 0.
    """

    def __init__(self, model: LatentModel, images: int, content_dimensions: int = 0) -> None:
        self._model = model
        self._content_dimensions = content_dimensions
        self._bound = BoundReader(model)
        self._scales = GroupMoments(model.resolutions, model.device)
        self._by_input = PerExample(images, len(model.resolutions) + 1, model.device)  # the last is the distortion
        self.statistics: Sequence[Statistic] = [*self._bound.statistics, self._scales, self._by_input]

    def add(self, seen: Seen) -> None:
        """Take in one batch."""
        self._by_input.add(seen.examples, self._bound.add(seen))
        scales = [prior.log_scale.double().exp().flatten(1).sum(1) for prior in seen.passed.priors]
        self._scales.add(torch.stack(scales, dim=1))

    def findings(self) -> Findings:
        """Quantities `negative_elbo`, `distortion`, `rate` (also in bits, and on the content alone), `prior_scale`.

        The first three have their values by image.
        """
        dimensions, content = self._model.dimensions, self._content_dimensions
        values = self._by_input.values.cpu().numpy() / dimensions  # (N, L + 1)
        rates, distortions = values[:, :-1], values[:, -1]
        rate = rates.sum(1)
        kept = {"negative_elbo": rate + distortions, "distortion": distortions, "rate": rate}
        quantities = [
            replace(quantity, by_image=tuple(kept[quantity.key].tolist())) if quantity.key in kept else quantity
            for quantity in self._bound.quantities(dimensions)
        ]
        if content:
            quantities += self._bound.quantities(content, "_content")
        return Findings((*quantities, self._mean_scale()), input_rates(rates))

    def _mean_scale(self) -> Quantity:
        """σ_p averaged over the latents of each level."""
        sums = self._scales.quantity("prior_scale", "mean prior scale")
        latents = [math.prod(shape) for shape in self._model.latent_shapes]
        members = groups_by_resolution(self._model.resolutions)
        at = {level: sum(latents[group] for group in groups) for level, groups in members.items()}
        assert sums.total is not None
        return replace(
            sums,
            total=sums.total.times(1 / sum(latents)),
            groups=tuple(group.times(1 / n) for group, n in zip(sums.groups, latents, strict=True)),
            resolutions={level: measured.times(1 / at[level]) for level, measured in sums.resolutions.items()},
        )


def input_rates(rates: _Numbers, unit: str = "nats/dim") -> InputRates:
    """How the rates (N, L) of N inputs spread. Of two equal rates, the input with the lower number comes first."""
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
