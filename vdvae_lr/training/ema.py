"""The exponential moving average of the weights, which samples and evaluates better than the weights themselves."""

import torch
from torch import Tensor


class MovingAverage:
    """`average` (N,) ← rate · average + (1 − rate) · values, after every update that was not skipped (as published)."""

    def __init__(self, values: Tensor, rate: float) -> None:
        self.average = values.detach().clone()
        self.rate = rate

    @torch.no_grad()
    def update(self, values: Tensor, applied: Tensor) -> None:
        """One step; `applied` () is 1 where the optimiser stepped and 0 where it skipped, still on the device."""
        self.average.lerp_(values, (1 - self.rate) * applied.to(values.dtype))
