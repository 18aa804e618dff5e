"""The evidence lower bound of a split in its parts: by latent group, and in total.

Shapes: B images, L latent groups.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import EvaluationBatch
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.posterior_passes import Seen, read_passes
from vdvae_lr.evaluation.quantities import GroupMoments, Quantity, measurements
from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World


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


class BoundReader:
    """Takes in passes, and averages −ELBO, rate and distortion over their images."""

    def __init__(self, model: LatentModel) -> None:
        self._dimensions = model.dimensions
        self._rates = GroupMoments(model.resolutions, model.device)
        self._totals = Moments((2,), model.device)  # −ELBO and distortion have no parts by group

    def add(self, seen: Seen) -> Tensor:
        """Take in one batch; returns its rates by group in nats per image, (B, L)."""
        rates, distortion = bound_nats(seen.passed, seen.target)
        self._rates.add(rates)
        self._totals.add(torch.stack([rates.sum(1) + distortion, distortion], dim=1))
        return rates

    def all_reduce_(self, world: World) -> None:
        """Put the processes' averages together; every process must call this."""
        self._rates.all_reduce_(world)
        self._totals.all_reduce_(world)

    def quantities(self, dimensions: int, suffix: str = "") -> list[Quantity]:
        """−ELBO, distortion and rate in nats/dim and bits/dim, with `suffix` in their keys.

        Args:
            dimensions: what 'per dim' divides by.
            suffix: where that is another number than the model's own; titles then name it.
        """
        on = f" on {dimensions} dimensions" if suffix else ""
        found = []
        units = (("nats/dim", "", 1 / dimensions), ("bits/dim", "_bits", 1 / dimensions / math.log(2)))
        for unit, bits, factor in units:
            ending = suffix + bits
            negative_elbo, distortion = measurements(self._totals, factor)
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
        rate = self._rates.quantity("", "", "", 1 / self._dimensions)
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


def evaluate_bound(model: LatentModel, batches: Iterable[EvaluationBatch], *, seed: int, world: World) -> Bound:
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
