"""R² of re-encoded latents by latent group: the share of their variation that re-encoding explains.

    R² = 1 − Σ‖μ' − z‖² / baseline

The baseline is Σ‖z − z̄‖² over the data, or Σ‖z − μ_p‖² from the prior's means.

Shapes: B images, L latent groups, Z latent channels, R a group's resolution.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.processes.world import World

_ROUNDING = 1e-24
"""Up to this share of z̄² a variance is rounding of z̄ in float64. Float32 latents that differ vary by 1e-15 of it."""


class LatentVariation:
    """Streaming ‖z_l − z̄_l‖² of every group, where z̄_l is each latent's mean over the data. Exact in any order.

    Args:
        latent_shapes: (Z, R, R) of every group.
        device: where the latents are.
    """

    def __init__(self, latent_shapes: Sequence[tuple[int, int, int]], device: torch.device) -> None:
        self._latents = [Moments(shape, device) for shape in latent_shapes]

    def add(self, latents: Sequence[Tensor]) -> None:
        """Add one batch: (B, Z, R, R) for each group."""
        for moments, latent in zip(self._latents, latents, strict=True):
            moments.add(latent)

    def all_reduce_(self, world: World) -> None:
        """Merge the statistics of all processes. Every process must call this."""
        for moments in self._latents:
            moments.all_reduce_(world)

    def quantity(self, resolutions: Sequence[int]) -> Quantity:
        """The average of ‖z_l − z̄_l‖² over images, by group, by resolution and in total; NaN below two images.

        Args:
            resolutions: the resolution of each of the L groups.
        """
        images = self._latents[0].count
        to_average = (images - 1) / max(images, 1)  # the variance has n − 1
        groups = [_variance_sum(moments) * to_average for moments in self._latents]

        def measured(values: Iterable[float]) -> Measurement:
            return Measurement(sum(values), None, images)

        members = {level: [g for g, r in enumerate(resolutions) if r == level] for level in sorted(set(resolutions))}
        by_resolution = {level: measured(groups[group] for group in chosen) for level, chosen in members.items()}
        return Quantity("", "", "", measured(groups), tuple(measured([value]) for value in groups), by_resolution)


def _variance_sum(moments: Moments) -> float:
    """The variance summed over a group's latents. If it is only rounding of their means, it is exactly 0."""
    variance = moments.variance.sum().item()
    return 0.0 if variance <= _ROUNDING * moments.mean.square().sum().item() else variance


def explained_share(
    key: str, title: str, error: Quantity, baseline: Quantity, difference: Quantity | None = None
) -> Quantity:
    """1 − error/baseline at every level; NaN where the baseline is 0, as for a group whose latents never move.

    Args:
        key: key of the result.
        title: title of the result.
        error: average of ‖μ' − z‖² over images.
        baseline: average of the baseline over the same images.
        difference: average of baseline − error. It gives their covariance, and with it the standard error of the ratio
            (delta method). None: no standard error.
    """
    errors = _levels(error)
    differences = [None] * len(errors) if difference is None else _levels(difference)
    total, *parts = [_share(*level) for level in zip(errors, _levels(baseline), differences, strict=True)]
    count = len(error.groups)
    by_resolution = dict(zip(error.resolutions, parts[count:], strict=True))
    return Quantity(key, title, "", total, tuple(parts[:count]), by_resolution)


def _levels(quantity: Quantity) -> list[Measurement]:
    """In total, by group, by resolution."""
    assert quantity.total is not None  # what adds up over groups has one
    return [quantity.total, *quantity.groups, *quantity.resolutions.values()]


def _share(error: Measurement, baseline: Measurement, difference: Measurement | None) -> Measurement:
    if not baseline.value > 0:
        return Measurement(math.nan, None, error.images)
    ratio = error.value / baseline.value
    return Measurement(1 - ratio, _ratio_error(error, baseline, difference, ratio), error.images)


def _ratio_error(
    error: Measurement, baseline: Measurement, difference: Measurement | None, ratio: float
) -> float | None:
    """Standard error of error/baseline, averages over the same images: √Var(error − ratio · baseline) / baseline."""
    if difference is None or difference.standard_error is None:
        return None
    variances = [(measured.standard_error or 0.0) ** 2 for measured in (error, baseline, difference)]
    covariance = (variances[0] + variances[1] - variances[2]) / 2
    variance = variances[0] + ratio**2 * variances[1] - 2 * ratio * covariance
    return math.sqrt(max(variance, 0.0)) / baseline.value
