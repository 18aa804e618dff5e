"""What an evaluation is made of: numbers by latent group, by resolution and in total, each with its unit and error.

A quantity is an average over images. Its standard error is over those images, taken at each level of the hierarchy by
itself: the errors of groups do not add up to that of their resolution, for groups of one image go together.

Shapes: B images, L latent groups, N examples of the split.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import Examples
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.processes.world import World


@dataclass(frozen=True)
class Measurement:
    """One number of one model."""

    value: float
    standard_error: float | None
    """Over the images; None where there is none to state."""
    images: int
    """How many images it is from."""

    def times(self, factor: float) -> "Measurement":
        """In another unit."""
        error = None if self.standard_error is None else self.standard_error * factor
        return Measurement(self.value * factor, error, self.images)


@dataclass(frozen=True)
class Quantity:
    """One thing measured, at every level of the hierarchy where it has a meaning."""

    key: str
    """Its name in files, and in docs/evaluation.md, which defines it."""
    title: str
    """Its name for people, without the unit."""
    unit: str
    """nats/dim, bits/dim, %, …; empty: a pure number."""
    total: Measurement | None = None
    groups: tuple[Measurement, ...] = ()
    """By latent group, top-down; empty: it has no parts."""
    resolutions: Mapping[int, Measurement] = field(default_factory=dict)
    """By resolution, coarse to fine; empty: it has no parts."""


@dataclass(frozen=True)
class InputRates:
    """How the rate KL(q(z|x)‖p(z)) spreads over the inputs x: for whom the posterior is near the prior."""

    images: int
    unit: str
    quantiles: Mapping[str, float]
    """By probability written out ("0", "0.05", …, "1"): ε such that this share of the inputs has KL(x) ≤ ε."""
    group_quantiles: tuple[Mapping[str, float], ...]
    """The same for each latent group's own rate, top-down."""
    nearest_collapse: tuple[tuple[int, float], ...]
    """Inputs with the least KL(x), least first: the example's number, and its rate."""


@dataclass(frozen=True)
class Findings:
    """What a section of an evaluation found."""

    quantities: Sequence[Quantity] = ()
    inputs: InputRates | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def and_also(self, other: "Findings") -> "Findings":
        """Those of both."""
        return Findings(
            (*self.quantities, *other.quantities),
            self.inputs or other.inputs,
            {**self.details, **other.details},
            (*self.notes, *other.notes),
        )

    def without_value(self) -> list[str]:
        """A sentence on the quantities that are NaN somewhere, if there are any; infinity is a value."""
        found = []
        for quantity in self.quantities:
            groups = [group for group, part in enumerate(quantity.groups) if math.isnan(part.value)]
            if groups:
                found.append(f"{quantity.key} ({named_groups(groups)})")
            elif quantity.total is not None and math.isnan(quantity.total.value):
                found.append(f"{quantity.key} (in total)")
        return [f"No number, and null in the JSON file: {'; '.join(found)}."] if found else []


def measurements(moments: Moments, factor: float = 1.0) -> list[Measurement]:
    """The means of a vector of moments, with their standard errors, times `factor`."""
    errors = moments.standard_error.tolist()
    return [
        Measurement(value, None if math.isnan(error) else error, moments.count).times(factor)
        for value, error in zip(moments.mean.tolist(), errors, strict=True)
    ]


class GroupMoments:
    """Streaming averages over images of something that adds up over latent groups: nats, squares.

    Args:
        resolutions: of the L groups, top-down.
        device: where the values are.
    """

    def __init__(self, resolutions: Sequence[int], device: torch.device) -> None:
        self._levels = sorted(set(resolutions))
        members = [[float(resolution == level) for level in self._levels] for resolution in resolutions]
        self._members = torch.tensor(members, dtype=torch.float64, device=device)  # (L, levels)
        self._moments = Moments((1 + len(self._levels) + len(resolutions),), device)

    def add(self, values: Tensor) -> None:
        """Take in one batch: (B, L)."""
        values = values.double()
        self._moments.add(torch.cat([values.sum(1, keepdim=True), values @ self._members, values], dim=1))

    def all_reduce_(self, world: World) -> None:
        """Put the processes' averages together; every process must call this."""
        self._moments.all_reduce_(world)

    @property
    def count(self) -> int:
        """Images taken in so far."""
        return self._moments.count

    def quantity(self, key: str, title: str, unit: str, factor: float = 1.0) -> Quantity:
        """Total, resolutions and groups, times `factor` (1/dimensions makes nats/dim of nats)."""
        total, *parts = measurements(self._moments, factor)
        levels = len(self._levels)
        by_resolution = dict(zip(self._levels, parts[:levels], strict=True))
        return Quantity(key, title, unit, total, tuple(parts[levels:]), by_resolution)


class PerExample:
    """One row of numbers for each of the first N examples of a split, whichever process saw it.

    Args:
        examples: N.
        columns: numbers a row.
        device: where the values are.
    """

    def __init__(self, examples: int, columns: int, device: torch.device) -> None:
        self.values = torch.zeros(examples, columns, dtype=torch.float64, device=device)
        """(N, columns); rows of other processes are zero until `all_reduce_`."""

    def add(self, examples: Examples, values: Tensor) -> None:
        """Take in one batch: B numbers of examples, and (B, columns)."""
        rows = torch.as_tensor(np.asarray(examples, dtype=np.int64), device=self.values.device)
        self.values[rows] = values.double()

    def all_reduce_(self, world: World) -> None:
        """Put the processes' rows together; every process must call this."""
        world.all_reduce_sum_(self.values)
