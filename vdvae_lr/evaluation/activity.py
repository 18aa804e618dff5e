"""Which latents say anything about the image: active units (Burda, Grosse and Salakhutdinov 2016), in a hierarchy.

A unit is active when its posterior mean varies over the data by at least `ACTIVE_VARIANCE`. In a hierarchy the
posterior mean of group l also moves with the z_<l that were drawn, even where q ignores the image; so the means are
taken along the path where every group takes its posterior's mean, which depends on the image alone.

A unit is one latent, or a channel, whose variance is the average over its positions, or a position, whose variance is
the average over its channels. In the prior's scale a unit is active when its variance is not zero and is at least
`ACTIVE_VARIANCE` times the prior's own variance, averaged over the same latents and over the data: so a prior whose
variance underflows to 0 calls every unit active that varies at all, and none that does not.

Shapes: B images, Z latent channels, R a group's resolution, L latent groups.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import EvaluationBatch, levels_for
from vdvae_lr.evaluation.group_words import named_groups
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World

ACTIVE_VARIANCE = 0.01
_ROUNDING = 1e-12  # of the prior's variance: a millionth of its scale is less than float32 resolves
_UNITS: dict[str, Callable[[Tensor], Tensor]] = {
    "latents": lambda values: values.flatten(),
    "channels": lambda values: values.mean((1, 2)),
    "positions": lambda values: values.mean(0).flatten(),
}
"""Numbers of a group's latents (Z, R, R) → one a unit."""


@dataclass(frozen=True)
class Activity:
    """Shares between 0 and 1 of what varies with the image, over all groups.

    `relative` compares the variance with the prior's own, so that it does not matter how large latents are.
    """

    examples: int
    latents: float
    latents_relative: float
    channels: float
    channels_relative: float


@dataclass(frozen=True)
class ActiveUnits:
    """How many of each group's units are active."""

    active: tuple[int, ...]
    """(L,), top-down."""
    units: tuple[int, ...]
    """(L,): how many there are."""

    def share(self, groups: Sequence[int] | None = None) -> float:
        """Between 0 and 1, over the units of the given groups (None: all)."""
        chosen = range(len(self.units)) if groups is None else groups
        return sum(self.active[group] for group in chosen) / sum(self.units[group] for group in chosen)


class LatentStatistics:
    """Streaming variance of every posterior mean, and the prior's average variance, in float64.

    Args:
        latent_shapes: (Z, R, R) of every group.
        device: where the passes are made.
    """

    def __init__(self, latent_shapes: Sequence[tuple[int, int, int]], device: torch.device) -> None:
        self._means = [Moments(shape, device) for shape in latent_shapes]
        self._prior_variances = [Moments(shape, device) for shape in latent_shapes]

    def add(self, posteriors: Sequence[DiagonalGaussian], priors: Sequence[DiagonalGaussian]) -> None:
        """Take in one batch: every group's distributions, (B, Z, R, R) each."""
        for moments, posterior in zip(self._means, posteriors, strict=True):
            moments.add(posterior.mean)
        for moments, prior in zip(self._prior_variances, priors, strict=True):
            moments.add((2 * prior.log_scale.double()).exp())

    def all_reduce_(self, world: World) -> None:
        """Put the processes' statistics together; every process must call this."""
        for moments in (*self._means, *self._prior_variances):
            moments.all_reduce_(world)

    @property
    def examples(self) -> int:
        """Images taken in so far."""
        return self._means[0].count

    @property
    def variances(self) -> tuple[Tensor, ...]:
        """Of every posterior mean over the images, with n − 1: (Z, R, R) a group.

        Raises:
            InputError: fewer than two examples, which have no variance.
        """
        if self.examples < 2:
            raise InputError("activity is a variance over images and needs at least 2 of them; evaluate on more.")
        return tuple(moments.variance for moments in self._means)

    def active(self, unit: str, threshold: float, *, relative: bool) -> ActiveUnits:
        """Which units are active, by group.

        Args:
            unit: latents, channels or positions.
            threshold: the least variance; positive.
            relative: in units of the prior's variance.

        Raises:
            InputError: fewer than two examples.
        """
        counts, units = [], []
        for variances, prior in zip(self.variances, self._prior_variances, strict=True):
            values = _UNITS[unit](variances)
            least = threshold * _UNITS[unit](prior.mean) if relative else threshold
            counts.append(int(((values >= least) & (values > 0)).sum()))
            units.append(len(values))
        return ActiveUnits(tuple(counts), tuple(units))

    def constant_groups(self) -> tuple[int, ...]:
        """The groups, counted from 0, whose posterior means are the same for all images, but for rounding.

        Raises:
            InputError: fewer than two examples.
        """
        pairs = zip(self.variances, self._prior_variances, strict=True)
        return tuple(group for group, (own, prior) in enumerate(pairs) if (own <= _ROUNDING * prior.mean).all())

    def activity(self, threshold: float = ACTIVE_VARIANCE) -> Activity:
        """Shares of latents and channels at or above `threshold`.

        Raises:
            InputError: fewer than two examples.
        """
        shares = [
            self.active(unit, threshold, relative=relative).share()
            for unit in ("latents", "channels")
            for relative in (False, True)
        ]
        return Activity(self.examples, *shares)


def mean_path(model: LatentModel, levels: Tensor) -> tuple[tuple[DiagonalGaussian, ...], tuple[DiagonalGaussian, ...]]:
    """Posteriors and priors of every group for images (B, C, H, W) as levels, each z_l its posterior's mean."""
    passed = model.infer(levels, [levels.new_zeros(1, *shape) for shape in model.latent_shapes])
    return passed.posteriors, passed.priors


@torch.inference_mode()
def latent_statistics(model: LatentModel, batches: Iterable[EvaluationBatch], *, world: World) -> LatentStatistics:
    """Of all examples of all processes' `batches`; exact in any order, no noise involved."""
    statistics = LatentStatistics(model.latent_shapes, model.device)
    for batch in batches:
        statistics.add(*mean_path(model, levels_for(model, batch.pixels)))
    statistics.all_reduce_(world)
    return statistics


def measure_activity(model: LatentModel, batches: Iterable[EvaluationBatch], *, world: World) -> Activity:
    """Activity over all examples of all processes' `batches`.

    Raises:
        InputError: fewer than two examples.
    """
    return latent_statistics(model, batches, world=world).activity()


def measure_active_units(
    model: LatentModel, measuring: Measuring, *, threshold: float = ACTIVE_VARIANCE
) -> tuple[list[Quantity], list[str]]:
    """Shares of active latents, channels and positions, in %, at every level; and a sentence on groups that are silent.

    There are no standard errors: a share of units is no average over images.

    Args:
        model: on its device.
        measuring: the images; all processes must call this.
        threshold: ε.

    Raises:
        InputError: fewer than two examples.
    """
    statistics = latent_statistics(model, measuring.batches("active units"), world=measuring.world)
    resolutions = model.resolutions
    quantities = []
    for unit in _UNITS:
        for relative in (False, True):
            found = statistics.active(unit, threshold, relative=relative)
            key = f"active_{unit}_relative" if relative else f"active_{unit}"
            title = f"active {unit}, in the prior's scale" if relative else f"active {unit}"
            quantities.append(_quantity(key, title, found, resolutions, statistics.examples))
    constant = statistics.constant_groups()
    if not constant:
        return quantities, []
    which = named_groups(constant)
    note = f"The posterior mean of {which} is the same for every image: its latents say nothing about it."
    return quantities, [note]


def _quantity(key: str, title: str, found: ActiveUnits, resolutions: Sequence[int], images: int) -> Quantity:
    def percent(groups: Sequence[int] | None = None) -> Measurement:
        return Measurement(100 * found.share(groups), None, images)

    members = {level: [g for g, r in enumerate(resolutions) if r == level] for level in sorted(set(resolutions))}
    groups = tuple(percent([group]) for group in range(len(resolutions)))
    return Quantity(key, title, "%", percent(), groups, {level: percent(chosen) for level, chosen in members.items()})


def mean_prior_scale(priors: Sequence[DiagonalGaussian]) -> Tensor:
    """σ_p averaged over all latents of an image: (B,). It falls when an objective shrinks the latents."""
    return torch.cat([prior.log_scale.flatten(1) for prior in priors], dim=1).exp().mean(1)
