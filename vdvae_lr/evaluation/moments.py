"""Streaming mean and variance, exact in any order and over any number of processes."""

import torch
from torch import Tensor

from vdvae_lr.processes.world import World


class Moments:
    """Count, mean and sum of squared deviations of every element, in float64 (Chan, Golub and LeVeque 1979).

    Batches are merged by their squared deviations. A difference of two large sums of squares would lose small
    variances.

    Args:
        shape: the shape of one value.
        device: where the values are.
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
