"""How two models differ in what was measured on both, with the same images and the same noise.

The difference of two averages over the same images is more certain than each of them: what makes one image hard makes
it hard for both models. So its standard error is that of the differences image by image.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.evaluation.quantities import Measurement

CLEAR = 3.0
"""Standard errors from 0 at which a difference is clear. Many are stated at once, and 2 would call some clear by
chance."""
_MOST = 10.0
"""A difference of so many times the base or more is no share to state: the base is close to 0."""
_DEPENDS_ON = {
    "*_fresh": ("reader_iterations", "reader_batch", "reader_lr"),
    "*_before": ("before",),
    "active_*": ("active_threshold",),
    "noise_*": ("noise_groups", "noise_images"),
}
"""Settings of an evaluation that a quantity depends on, where its title does not name them."""


@dataclass(frozen=True)
class Difference:
    """A total less that of the base."""

    change: Measurement
    """Its error is that of the differences by image; None if they are not kept."""
    base: float
    """The base's total."""

    @property
    def is_clear(self) -> bool | None:
        """Whether it is `CLEAR` standard errors from 0 or more; None if its error is not known."""
        error = self.change.standard_error
        return None if error is None else abs(self.change.value) >= CLEAR * error

    @property
    def share(self) -> float:
        """The difference as a share of the base; NaN if that is 0, the two differ in sign, or in size by too much."""
        ours = self.base + self.change.value
        share = self.change.value / abs(self.base) if ours * self.base > 0 else math.nan
        return share if abs(share) < _MOST else math.nan


def difference(model: Evaluation, base: Evaluation, key: str) -> Difference | None:
    """The total of the quantity `key` of `model` less that of `base`.

    None if it was not measured on both; on the same images, draws and thresholds, and in one unit; or if a total is not
    finite.
    """
    ours, theirs = model.quantity(key), base.quantity(key)
    if ours is None or theirs is None or ours.total is None or theirs.total is None:
        return None
    alike = (ours.title, ours.unit, ours.total.images) == (theirs.title, theirs.unit, theirs.total.images)
    value = ours.total.value - theirs.total.value
    if not alike or not math.isfinite(value) or _circumstances(model, key) != _circumstances(base, key):
        return None
    error = None
    if len(ours.by_image) == len(theirs.by_image) > 1:
        apart = [one - other for one, other in zip(ours.by_image, theirs.by_image, strict=True)]
        error = statistics.stdev(apart) / math.sqrt(len(apart))
    return Difference(Measurement(value, error, ours.total.images), theirs.total.value)


def _circumstances(evaluation: Evaluation, key: str) -> list[Any]:
    """On what, and how, the quantity was measured."""
    names = [name for pattern, settings in _DEPENDS_ON.items() if fnmatchcase(key, pattern) for name in settings]
    split: Mapping[str, Any] = evaluation.inventory.get(evaluation.split, {})
    return [
        evaluation.dataset,
        evaluation.split,
        evaluation.seed,
        split.get("fingerprint") if isinstance(split, Mapping) else None,
        *(evaluation.settings.get(name) for name in names),
    ]
