"""Statistics over images that are exact in any order and over any number of processes.

Shapes: B images, L latent groups, N examples of a split.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import Examples
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.processes.world import World


class Moments:
    """Count, mean and sum of squared deviations of every element, in float64 (Chan, Golub and LeVeque 1979).

    Batches are merged by their squared deviations. A difference of two large sums of squares would lose small
    variances. `shape` is that of one value.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self.mean)

    def add(self, values: Tensor) -> None:
        """Add B values: (B, *shape)."""
        values = values.to(torch.float64)
        added = len(values)
        if added == 0:
            return
        mean = values.mean(0)
        total = self.count + added
        difference = mean - self.mean
        self._squares += (values - mean).square().sum(0) + difference.square() * (self.count * added / total)
        self.mean += difference * (added / total)
        self.count = total

    def all_reduce_(self, world: World) -> None:
        """Merge the moments of all processes. Every process must call this, even one that has no value."""
        if world.size == 1:
            return
        total = torch.tensor(float(self.count), dtype=torch.float64, device=self.mean.device)
        world.all_reduce_sum_(total)
        mean = world.all_reduce_sum_(self.mean * self.count) / total.clamp(min=1)
        self._squares += (self.mean - mean).square() * self.count
        world.all_reduce_sum_(self._squares)
        self.mean = mean
        self.count = int(total.item())

    @property
    def variance(self) -> Tensor:
        """The variance of the values, with n − 1; NaN below two values."""
        return self._squares / (self.count - 1) if self.count > 1 else torch.full_like(self.mean, torch.nan)

    @property
    def standard_error(self) -> Tensor:
        """The standard error of the mean; NaN below two values."""
        return (self.variance / max(self.count, 1)).sqrt()

    def measurements(self, factor: float = 1.0) -> list[Measurement]:
        """The mean and its standard error, times `factor`, of every element of a vector."""
        return [
            Measurement(value, None if math.isnan(error) else error, self.count).times(factor)
            for value, error in zip(self.mean.tolist(), self.standard_error.tolist(), strict=True)
        ]


class GroupMoments:
    """Averages over images of something that adds up over the L latent groups, such as nats or squares."""

    def __init__(self, resolutions: Sequence[int], device: torch.device) -> None:
        self._levels = sorted(set(resolutions))
        members = [[float(resolution == level) for level in self._levels] for resolution in resolutions]
        self._members = torch.tensor(members, dtype=torch.float64, device=device)  # (L, levels)
        self._moments = Moments((1 + len(self._levels) + len(resolutions),), device)

    def add(self, values: Tensor) -> None:
        """Add one batch: (B, L)."""
        values = values.double()
        self._moments.add(torch.cat([values.sum(1, keepdim=True), values @ self._members, values], dim=1))

    def all_reduce_(self, world: World) -> None:
        """Merge the averages of all processes. Every process must call this."""
        self._moments.all_reduce_(world)

    @property
    def count(self) -> int:
        """The number of images so far."""
        return self._moments.count

    def quantity(self, key: str = "", title: str = "", unit: str = "", factor: float = 1.0) -> Quantity:
        """Total, resolutions and groups, times `factor`. A factor of 1/dimensions turns nats into nats/dim."""
        total, *parts = self._moments.measurements(factor)
        levels = len(self._levels)
        by_resolution = dict(zip(self._levels, parts[:levels], strict=True))
        return Quantity(key, title, unit, total, tuple(parts[levels:]), by_resolution)


class PerExample:
    """One row of numbers for each of the first N examples of a split, whichever process measured it."""

    def __init__(self, examples: int, columns: int, device: torch.device) -> None:
        self.values = torch.zeros(examples, columns, dtype=torch.float64, device=device)
        """(N, columns). Until `all_reduce_`, rows that other processes measure are zero."""

    def add(self, examples: Examples, values: Tensor) -> None:
        """Add one batch: the numbers of B examples, and their rows (B, columns)."""
        rows = torch.as_tensor(np.asarray(examples, dtype=np.int64), device=self.values.device)
        self.values[rows] = values.double()

    def all_reduce_(self, world: World) -> None:
        """Merge the rows of all processes. Every process must call this."""
        world.all_reduce_sum_(self.values)

    def column(self, number: int, factor: float = 1.0) -> tuple[float, ...]:
        """One number of every example, times `factor`."""
        return tuple((self.values[:, number] * factor).tolist())
