"""The answer in ten seconds: what changed against what, by how much, and whether that is clear; and all totals."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vdvae_lr.evaluation.differences import CLEAR, Difference, difference
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.report.content import MISSING, Cell, Table
from vdvae_lr.report.evaluation_table import stated_text
from vdvae_lr.report.hierarchy import alternatives, matching, measured, measured_keys, value_label
from vdvae_lr.report.reported import Reported, as_number

_BOUND, _INFORMATION = "negative_elbo", "information_from_samples"
_FRESH, _RESPONSE = f"{_INFORMATION}_fresh", "noise_rms_prior_scale_{}"
_CHIEF = (
    *(_BOUND, "rate", "distortion", _INFORMATION, f"{_INFORMATION}_before", _FRESH),
    *("active_latents", "active_latents_relative", "noise_rms_raw_{}", _RESPONSE, "noise_band_*_prior_scale_{}"),
)
"""Keys of the rows that are shown at once. {} is the noise's variance."""
_USUAL_VARIANCE = "0.3"
_MATTERS = 0.05
"""A latent group matters if noise in it alone moves the image by this share of what noise in all groups does; and a
change of its answer, if it is by more than this share."""


@dataclass(frozen=True)
class Verdict:
    """What the template shows of the totals."""

    sentences: Sequence[str]
    """On each model that trained with LR, or may have, against another one."""
    chief: Table
    every: Table
    base: str
    """The model that the others are compared with; empty if it is alone."""
    compares: bool
    """Whether any quantity of two models can be compared."""


@dataclass(frozen=True)
class _Pair:
    model: Reported
    base: Reported

    @property
    def title(self) -> str:
        return f"{self.model.label} against {self.base.label}"

    def difference(self, key: str) -> Difference | None:
        if self.model.evaluation is None or self.base.evaluation is None:
            return None
        return difference(self.model.evaluation, self.base.evaluation, key)


def verdict(models: Sequence[Reported]) -> Verdict | None:
    """Sentences and tables on the totals of all models; None if nothing was measured."""
    keys = [key for key in measured_keys(models) if any(each.total for each in measured(models, key).values())]
    if not keys:
        return None
    base, *others = [model for model in models if model.evaluation is not None]
    variance = _variance(keys)
    pairs = _pairs(base, others)
    against = {model: _Pair(model, base) for model in others}
    return Verdict(
        [_sentence(pair, variance) for pair in pairs if _weight(pair.model) != 0],
        _chief_table(models, pairs, matching(keys, [key.format(variance) for key in _CHIEF])),
        Table(
            "All quantities in total",
            ["", *(model.label for model in models)],
            [[_title_cell(measured(models, key).values()), *_value_cells(models, key, against)] for key in keys],
        ),
        base.label if others else "",
        any(pair.difference(key) is not None for pair in pairs for key in keys),
    )


def _variance(keys: Sequence[str]) -> str:
    """The noise's variance in the chief rows, as keys have it: the usual one if it was measured, or the largest."""
    found = [key.rpartition("_")[2] for key in keys if fnmatchcase(key, _RESPONSE.format("*"))]
    usual = _USUAL_VARIANCE in found or not found
    return _USUAL_VARIANCE if usual else max(found, key=float)


def _weight(model: Reported) -> float:
    """α_T of the run; NaN if it is unknown, as for an evaluation alone."""
    return as_number(model.settings.get("alpha_T"))


def _pairs(base: Reported, others: Sequence[Reported]) -> list[_Pair]:
    """Runs with LR against a run without it, if there is one; then every model against the first one."""
    plain = next((model for model in (*others, base) if _weight(model) == 0), base)
    trained = [model for model in others if _weight(model) > 0]
    found = [*(_Pair(model, plain) for model in trained), *(_Pair(model, base) for model in others)]
    return list(dict.fromkeys(found))


def _sentence(pair: _Pair, variance: str) -> str:
    """What LR cost, what it gave, whether another encoder can read that, and whether it can be seen."""
    price = _said(pair.difference(_BOUND), "the bound is", "worse", "better")
    gain = _said(pair.difference(_INFORMATION), "eq. 5 is", "higher", "lower")
    read = _said(pair.difference(_FRESH), "what an encoder trained afresh reads is", "higher", "lower")
    answer = f"the answer to noise of {variance} σ_p² is"
    seen = _said(pair.difference(_RESPONSE.format(variance)), answer, "stronger", "weaker")
    opened = _opened(pair, _RESPONSE.format(variance))
    seen = ", ".join(filter(None, (seen, opened)))
    if not any((price, gain, read, seen)):
        return (
            f"{pair.title}: nothing is compared, because their evaluations are not alike; evaluate both on the same "
            "images with the same settings."
        )
    if gain and not read:
        read = "no encoder trained afresh has read it (`--reader_iterations 2000`)"
    sentence = f"{pair.title}: {'; '.join(filter(None, (price, gain, read, seen)))}."
    bound = pair.difference(_BOUND)
    if bound is not None and bound.is_clear is None:
        sentence += (
            " An earlier version measured, so it is not known whether the bound's change is clear; evaluate again."
        )
    return sentence


def _said(found: Difference | None, subject: str, more: str, less: str) -> str:
    """A clause; empty if there is no difference to state."""
    if found is None or math.isnan(found.share):
        return ""
    if found.is_clear is False:
        return f"{subject} the same within noise ({_percent(found)})"
    return f"{subject} {_percent(found).lstrip('+-')} {more if found.change.value > 0 else less}"


def _opened(pair: _Pair, key: str) -> str:
    """The latent group to which the image answers most differently, of those that matter; empty if none does clearly.

    Noise in all groups moves the image mostly through the coarsest ones, and hides the others.
    """
    ours, theirs, sizes = pair.model.quantity(key), pair.base.quantity(key), pair.model.resolutions
    if pair.difference(key) is None or sizes != pair.base.resolutions or not ours or not theirs or not ours.total:
        return ""
    ratios = {
        group: one.value / other.value
        for group, (one, other) in enumerate(zip(ours.groups, theirs.groups, strict=True))
        if min(one.value, other.value) > 0
        and max(one.value, other.value) >= _MATTERS * ours.total.value
        and abs(one.value - other.value) >= CLEAR * math.hypot(one.standard_error or 0.0, other.standard_error or 0.0)
    }
    group = max(ratios, key=lambda each: abs(math.log(ratios[each])), default=None)
    if group is None or abs(ratios[group] - 1) < _MATTERS:
        return ""
    where = f"latent group {group} ({sizes[group]}×{sizes[group]})"
    return f"and to noise in {where} alone it is {ratios[group]:.2g} times as strong"


def _percent(found: Difference) -> str:
    """The difference as a share of the base, to the first digit of its error."""
    percent = 100 * found.share
    error = 100 * (found.change.standard_error or 0.0) / abs(found.base)
    decimals = max(0, -math.floor(math.log10(error))) if error else 1
    text = f"{percent:+.{min(decimals, 3)}f}%"
    return text if any(digit in text for digit in "123456789") else text[1:]


def _chief_table(models: Sequence[Reported], pairs: Sequence[_Pair], keys: Iterable[str]) -> Table:
    head = ["", *(pair.title for pair in pairs), *(model.label for model in models)]
    rows = [
        [
            _title_cell(measured(models, key).values()),
            *(_difference_cell(pair.difference(key)) for pair in pairs),
            *_value_cells(models, key, {}),
        ]
        for key in keys
    ]
    return Table("Chief quantities in total", head, rows)


def _title_cell(found: Collection[Quantity]) -> Cell:
    """Title, unit and number of images. If the models differ in one, such as by a number of draws, all are shown."""
    units = alternatives(value_label(quantity.key, quantity.unit) for quantity in found)
    counts = alternatives(f"{quantity.total.images:,}" for quantity in found if quantity.total is not None)
    return Cell(alternatives(quantity.title for quantity in found), small=f"{units}, {counts} images")


def _difference_cell(found: Difference | None) -> str | Cell:
    """The share, bold if it is clear; below it the number, its error, and the verdict in words."""
    if found is None:
        return MISSING
    number = _number(found)
    if math.isnan(found.share):
        return Cell(number, small=_words(found))
    small = ", ".join(filter(None, (number, _words(found))))
    return Cell(_percent(found), small=small, tag="strong" if found.is_clear else "")


def _number(found: Difference) -> str:
    text = stated_text(found.change)
    return f"+{text}" if found.change.value > 0 else text


def _words(found: Difference) -> str:
    return {True: "clear", False: "within noise", None: ""}[found.is_clear]


def _value_cells(models: Sequence[Reported], key: str, against: dict[Reported, _Pair]) -> Iterable[str | Cell]:
    """Each model's total; below it the difference from the base, if it is wanted and can be stated."""
    for model in models:
        quantity = model.quantity(key)
        if quantity is None or quantity.total is None:
            yield MISSING
            continue
        found = against[model].difference(key) if model in against else None
        text = stated_text(quantity.total)
        yield text if found is None else Cell(text, small=_number(found))
