"""Active units: which latents depend on the image (Burda, Grosse and Salakhutdinov 2016), in a hierarchy.

A unit is active when its posterior mean has a variance of at least `ACTIVE_VARIANCE` over the images. In a hierarchy
the posterior mean of group l also changes with the z_<l that were drawn, even where q ignores the image. So every group
takes its posterior mean as its latent here: the means then depend on the image alone.

A unit is one latent, one channel or one position. A channel's variance is the average over its positions; a position's
variance is the average over its channels. Relative to the prior, a unit is active when its variance is positive and at
least `ACTIVE_VARIANCE` times the prior's variance, averaged over the same latents and over the images. If the prior
variance underflows to 0, any unit that varies counts as active.

Shapes: B images, Z latent channels, R a group's resolution, L latent groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import Seen, Statistic
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel

ACTIVE_VARIANCE = 0.01
_ROUNDING = 1e-12  # of the prior's variance: a millionth of its scale is less than float32 resolves
_UNITS: dict[str, Callable[[Tensor], Tensor]] = {
    "latents": lambda values: values.flatten(),
    "channels": lambda values: values.mean((1, 2)),
    "positions": lambda values: values.mean(0).flatten(),
}
"""By the unit's name: a group's values (Z, R, R) → one value for each unit."""


@dataclass(frozen=True)
class ActiveUnits:
    """The number of active units in each group."""

    active: tuple[int, ...]
    """(L,), top-down."""
    units: tuple[int, ...]
    """(L,): the number of all units."""

    def share(self, groups: Sequence[int] | None = None) -> float:
        """Active units divided by all units of the given groups (None: all groups)."""
        chosen = range(len(self.units)) if groups is None else groups
        return sum(self.active[group] for group in chosen) / sum(self.units[group] for group in chosen)


@dataclass(frozen=True, eq=False)  # the same only as itself, so that it can be part of a key
class ActiveLatents:
    """Which latents are active."""

    masks: tuple[Tensor, ...]
    """(Z, R, R) bool for each group, top-down."""

    def counts(self) -> list[int]:
        """The number of active latents in each group: (L,)."""
        return [int(mask.sum()) for mask in self.masks]


class LatentStatistics:
    """The variance of every posterior mean over images, and the prior's average variance, in float64."""

    def __init__(self, latent_shapes: Sequence[tuple[int, int, int]], device: torch.device) -> None:
        self._means = [Moments(shape, device) for shape in latent_shapes]
        self._prior_variances = [Moments(shape, device) for shape in latent_shapes]
        self.statistics: Sequence[Statistic] = [*self._means, *self._prior_variances]

    def take_in(self, posteriors: Sequence[DiagonalGaussian], priors: Sequence[DiagonalGaussian]) -> None:
        """Add one batch: every group's distributions, (B, Z, R, R) each."""
        for moments, posterior in zip(self._means, posteriors, strict=True):
            moments.add(posterior.mean)
        for moments, prior in zip(self._prior_variances, priors, strict=True):
            moments.add((2 * prior.log_scale.double()).exp())

    @property
    def examples(self) -> int:
        """The number of images so far."""
        return self._means[0].count

    @property
    def variances(self) -> tuple[Tensor, ...]:
        """The variance of every posterior mean over the images, with n − 1: (Z, R, R) for each group.

        Raises:
            InputError: there are fewer than two images.
        """
        if self.examples < 2:
            raise InputError("active units need a variance over at least 2 images; evaluate on more.")
        return tuple(moments.variance for moments in self._means)

    def active(self, unit: str, threshold: float, *, relative: bool = False) -> ActiveUnits:
        """The active units of each group.

        Args:
            unit: latents, channels or positions.
            threshold: the least variance of an active unit; positive.
            relative: whether `threshold` is multiplied by the prior's variance.
        """
        found = self._active(_UNITS[unit], threshold, relative)
        return ActiveUnits(tuple(int(each.sum()) for each in found), tuple(map(len, found)))

    def active_latents(self, threshold: float, *, relative: bool = False) -> ActiveLatents:
        """The latents that `active` counts; arguments as there."""
        return ActiveLatents(tuple(self._active(lambda values: values, threshold, relative)))

    def active_prior_scale(self, threshold: float, groups: Sequence[int]) -> float:
        """The root of σ_p² averaged over the images and the active latents of the given groups; 0 if none is."""
        masks = self.active_latents(threshold).masks
        active = torch.cat([self._prior_variances[group].mean[masks[group]] for group in groups])
        return active.mean().sqrt().item() if len(active) else 0.0

    def _active(self, units: Callable[[Tensor], Tensor], threshold: float, relative: bool) -> list[Tensor]:
        found = []
        for variances, prior in zip(self.variances, self._prior_variances, strict=True):
            values = units(variances)
            least = threshold * units(prior.mean) if relative else threshold
            found.append((values >= least) & (values > 0))
        return found

    def constant_groups(self) -> tuple[int, ...]:
        """The groups, counted from 0, whose posterior means are the same for all images, up to rounding."""
        pairs = zip(self.variances, self._prior_variances, strict=True)
        return tuple(group for group, (own, prior) in enumerate(pairs) if (own <= _ROUNDING * prior.mean).all())


class ActivityReader(LatentStatistics):
    """The statistics of a second pass over each image, in which every z_l is its posterior mean. It uses no noise."""

    def __init__(self, model: LatentModel) -> None:
        super().__init__(model.latent_shapes, model.device)
        self._model = model

    def add(self, seen: Seen) -> None:
        """Take in one batch."""
        no_noise = [seen.levels.new_zeros(1, *shape) for shape in self._model.latent_shapes]
        passed = self._model.infer(seen.levels, no_noise)
        self.take_in(passed.posteriors, passed.priors)

    def findings(self, threshold: float = ACTIVE_VARIANCE) -> Findings:
        """Shares of active latents, channels and positions in %, and the active latents' prior scale, at every level; a
        note on groups that never change.

        There are no standard errors: a share of units is not an average over images.
        """
        quantities = []
        for unit in _UNITS:
            for relative in (False, True):
                found = self.active(unit, threshold, relative=relative)

                def percent(groups: Sequence[int], found: ActiveUnits = found) -> Measurement:
                    return Measurement(100 * found.share(groups), None, self.examples)

                key, title = f"active_{unit}", f"active {unit}"
                if relative:
                    key, title = f"{key}_relative", f"{title}, in the prior's scale"
                quantities.append(Quantity.by_level(key, title, "%", self._model.resolutions, percent))

        def prior_scale(groups: Sequence[int]) -> Measurement:
            return Measurement(self.active_prior_scale(threshold, groups), None, self.examples)

        title = "prior scale of the active latents"
        quantities.append(Quantity.by_level("prior_scale_active", title, "", self._model.resolutions, prior_scale))
        constant = self.constant_groups()
        which = named_groups(constant) if constant else ""
        note = f"The posterior mean of {which} is the same for every image: its latents say nothing about it."
        return Findings(quantities, notes=[note] if constant else [])
