"""The numbers of an evaluation: by latent group, by resolution and in total, each with its unit and standard error.

A quantity is an average over images, and its standard error is over those images. Each level of the hierarchy has its
own error: the groups of one image go together, so their errors do not add up to that of their resolution.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vdvae_lr.evaluation.group_choice import groups_by_resolution, named_groups


@dataclass(frozen=True)
class Measurement:
    """One number of one model."""

    value: float
    standard_error: float | None
    """Over the images; None if there is none to state."""
    images: int
    """The number of images it is measured on."""

    def times(self, factor: float) -> "Measurement":
        """The same in another unit."""
        error = None if self.standard_error is None else self.standard_error * factor
        return Measurement(self.value * factor, error, self.images)

    def root(self) -> "Measurement":
        """The square root of a number of 0 or more, with its error by the delta method (0 for the root of 0)."""
        value = math.sqrt(self.value)
        error = self.standard_error and self.standard_error / (2 * value)
        return Measurement(value, error, self.images)


@dataclass(frozen=True)
class Quantity:
    """One thing measured, at every level of the hierarchy where it has a meaning."""

    key: str
    """Its name in files, and in docs/evaluation.md, which defines it."""
    title: str
    """Its name for people, without the unit."""
    unit: str
    """nats/dim, bits/dim, %, …; empty for a pure number."""
    total: Measurement | None = None
    groups: tuple[Measurement, ...] = ()
    """By latent group, top-down; empty if it has no parts."""
    resolutions: Mapping[int, Measurement] = field(default_factory=dict)
    """By resolution, coarse to fine; empty if it has no parts."""
    by_image: tuple[float, ...] = ()
    """A number for each image, in their order: `total` is their mean, and its error comes from their spread. Empty if
    they are not kept."""

    @staticmethod
    def by_level(
        key: str, title: str, unit: str, resolutions: Sequence[int], measured: Callable[[Sequence[int]], Measurement]
    ) -> "Quantity":
        """The quantity that `measured` gives for a set of groups: all of them, each alone, those of each resolution."""
        groups = range(len(resolutions))
        by_resolution = {level: measured(members) for level, members in groups_by_resolution(resolutions).items()}
        return Quantity(key, title, unit, measured(groups), tuple(measured([g]) for g in groups), by_resolution)


@dataclass(frozen=True)
class InputRates:
    """How the rate KL(q(z|x)‖p(z)) spreads over the inputs x: where it is small, the posterior is near the prior."""

    images: int
    unit: str
    quantiles: Mapping[str, float]
    """By probability as text ("0", "0.05", …, "1"): the ε for which this share of the inputs has KL(x) ≤ ε."""
    group_quantiles: tuple[Mapping[str, float], ...]
    """The same for each latent group's own rate, top-down."""
    nearest_collapse: tuple[tuple[int, float], ...]
    """The inputs with the least KL(x), least first: the example's number and its rate."""


@dataclass(frozen=True)
class Findings:
    """What a section of an evaluation found."""

    quantities: Sequence[Quantity] = ()
    inputs: InputRates | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def and_also(self, other: "Findings") -> "Findings":
        """The findings of both."""
        return Findings(
            (*self.quantities, *other.quantities),
            self.inputs or other.inputs,
            {**self.details, **other.details},
            (*self.notes, *other.notes),
        )

    def without_value(self) -> list[str]:
        """A sentence that names the quantities with a NaN, if there are any. Infinity is a value."""
        found = []
        for quantity in self.quantities:
            groups = [group for group, part in enumerate(quantity.groups) if math.isnan(part.value)]
            if groups:
                found.append(f"{quantity.key} ({named_groups(groups)})")
            elif quantity.total is not None and math.isnan(quantity.total.value):
                found.append(f"{quantity.key} (in total)")
        return [f"NaN, and null in the JSON file: {'; '.join(found)}."] if found else []
