"""The quantities of evaluations over the hierarchy: a chart each, from the coarsest latent group, and its numbers.

Shapes: L latent groups.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.report.charts import Chart, Charts, Curve, legend
from vdvae_lr.report.data import Reported, as_number
from vdvae_lr.report.evaluation_table import stated
from vdvae_lr.report.html import Html, boxes, element, folded, joined, table
from vdvae_lr.report.spectra import leading_spectra

GROUP_AXIS = "latent group, 0 = coarsest (above: resolution)"
FIRST = (
    "rate",
    "active_channels",
    "active_channels_relative",
    "information_from_samples",
    "recovered_sampled_image",
    "latent_r2_sampled_image",
    "largest_singular_value",
    "largest_singular_value_prior_scale",
    "posterior_gap",
    "prior_scale",
)
"""Keys of the charts that are shown at once, in order."""
BARS = "Bars: ± one standard error over images, where there is one."
NOISE = "noise_*"
_NO_NOISE = "noise_*_0.0"
_SCALES = {"noise_rms_*": "RMS, 1 = all 255 levels", "noise_ssim_*": "similarity, 1 = the same"}  # of no unit
_SAME_IN_OTHER_UNITS = ("*_bits", "*_content")
_HEADLINES = (
    *("negative_elbo", "negative_elbo_bits", "rate", "distortion", "importance_bound", "information_from_samples"),
    *("recovered_sampled_image", "recovered_mean_image", "active_latents", "active_channels", "prior_scale"),
    *("latent_r2_sampled_image", "posterior_gap", "noise_rms_*", "largest_singular_value", "theorem_bound"),
)


def totals(reported: Sequence[Reported]) -> Html:
    """What was measured in total: the chief numbers at once, all when asked for; nothing where nothing was."""
    keys = [key for key in quantity_keys(reported) if any(total_of(each, key) is not None for each in reported)]
    chief = [key for key in _in_order(keys, _HEADLINES) if not fnmatchcase(key, _NO_NOISE)]
    if not keys:
        return Html()
    note = "± one standard error over images."
    measured = evaluated(reported)
    if len(measured) > 1:
        note += (
            f" Below: the difference from {reported[measured[0]].label}, which is surer than the errors say where "
            "images and noise are the same."
        )
    return joined(
        [
            element("p", note, class_="muted"),
            _totals_table(reported, chief, "Chief quantities in total"),
            folded(f"All {len(keys)} quantities", _totals_table(reported, keys, "All quantities in total")),
        ]
    )


def _in_order(keys: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The keys that some pattern describes, in the patterns' order."""
    known = list(keys)
    return list(dict.fromkeys(key for pattern in patterns for key in known if fnmatchcase(key, pattern)))


def _totals_table(reported: Sequence[Reported], keys: Iterable[str], name: str) -> Html:
    rows = []
    for key in keys:
        first = _quantity(reported[evaluated(reported)[0]], key)
        cells = [_total_cell(_quantity(each, key), first) for each in reported]
        rows.append([element("span", _titles(reported, key), element("small", _small_print(reported, key))), *cells])
    return table(["", *(each.label for each in reported)], rows, name, class_="numbers")


def _titles(reported: Sequence[Reported], key: str) -> str:
    """What a quantity is called; by all its names where the models' differ, such as by a number of draws."""
    found = [quantity for each in reported if (quantity := _quantity(each, key)) is not None]
    return " / ".join(dict.fromkeys(quantity.title for quantity in found))


def _small_print(reported: Sequence[Reported], key: str) -> str:
    units = dict.fromkeys(quantity.unit for each in reported if (quantity := _quantity(each, key)) is not None)
    counts = dict.fromkeys(f"{total.images:,}" for each in reported if (total := total_of(each, key)) is not None)
    return f" {' / '.join(unit for unit in units if unit) or 'no unit'}, {' / '.join(counts)} images"


def _total_cell(quantity: Quantity | None, first: Quantity | None) -> str:
    """A total, and its difference from the first model's if that one is the same quantity in the same unit."""
    if quantity is None or quantity.total is None:
        return "–"
    measured, alone = quantity.total, _stated(quantity.total)
    if first is None or first is quantity or first.total is None:
        return alone
    difference = measured.value - first.total.value
    if (quantity.title, quantity.unit) != (first.title, first.unit) or not np.isfinite(difference):
        return alone
    return joined([alone, element("small", f"{difference:+.3g}")])


def evaluated(reported: Sequence[Reported]) -> list[int]:
    """Numbers of the models that have an evaluation."""
    return [run for run, each in enumerate(reported) if each.evaluation is not None]


def value_label(key: str, unit: str) -> str:
    """What an axis calls the values of a quantity."""
    scale = next((words for pattern, words in _SCALES.items() if fnmatchcase(key, pattern)), "value (no unit)")
    return unit or scale


def quantity_keys(reported: Sequence[Reported]) -> list[str]:
    """Keys of everything measured on any of the models, in order."""
    evaluations = [each.evaluation for each in reported if each.evaluation is not None]
    return list(dict.fromkeys(quantity.key for evaluation in evaluations for quantity in evaluation.quantities))


def _quantity(reported: Reported, key: str) -> Quantity | None:
    return reported.evaluation.quantity(key) if reported.evaluation is not None else None


def total_of(reported: Reported, key: str) -> Measurement | None:
    """One quantity of one model in total; None where it was not measured."""
    quantity = _quantity(reported, key)
    return quantity.total if quantity is not None else None


def hierarchy(reported: Sequence[Reported], charts: Charts) -> Html:
    """The chief quantities by latent group at once, the others when asked for; noise responses are left out."""
    keys = keys_by_group(reported)
    first = _in_order(keys, FIRST)
    others = [
        key
        for key in keys
        if key not in first and not any(fnmatchcase(key, out) for out in (NOISE, *_SAME_IN_OTHER_UNITS))
    ]
    shown = joined([group_figures(reported, first, charts), leading_spectra(reported, charts)])
    more = group_figures(reported, others, charts)
    if not shown and not more:
        return Html()
    note = (
        f"{BARS} Stripes: groups of one resolution. A logarithmic scale where the positive numbers span two decades or "
        "more, and none lies below 0 by more than 1/500 of the largest; ▾ stands for those that it cannot hold."
    )
    return joined(
        [
            legend(charts.runs, evaluated(reported)),
            element("p", note, class_="muted"),
            boxes("charts", shown),
            folded("More quantities by latent group", boxes("charts", more)) if more else "",
        ]
    )


def _stated(measured: Measurement) -> str:
    return " ".join(stated(measured)).strip()


def error_of(measured: Measurement) -> float:
    """Its standard error; NaN where there is none."""
    return float("nan") if measured.standard_error is None else measured.standard_error


def keys_by_group(reported: Sequence[Reported]) -> list[str]:
    """Those of `quantity_keys` that have parts by latent group."""
    return [
        key
        for key in quantity_keys(reported)
        if any((quantity := _quantity(each, key)) is not None and quantity.groups for each in reported)
    ]


def group_figures(reported: Sequence[Reported], keys: Iterable[str], charts: Charts) -> Html:
    """A chart over the hierarchy for each key, with its numbers folded up below it."""
    return joined(_figures(reported, key, charts) for key in keys)


def _figures(reported: Sequence[Reported], key: str, charts: Charts) -> Html:
    found = {
        run: quantity
        for run, each in enumerate(reported)
        if (quantity := _quantity(each, key)) is not None and quantity.groups
    }
    return joined(
        _figure({run: found[run] for run in runs}, reported[runs[0]].resolutions, addition, charts)
        for addition, runs in same_hierarchies(reported, {run: quantity.unit for run, quantity in found.items()})
    )


def same_hierarchies(reported: Sequence[Reported], units: Mapping[int, str]) -> list[tuple[str, list[int]]]:
    """`alike` for models whose groups have the same resolutions, and whose numbers the same unit."""
    return alike(reported, {run: (reported[run].resolutions, unit) for run, unit in units.items()})


def alike(reported: Sequence[Reported], kinds: Mapping[int, Hashable]) -> list[tuple[str, list[int]]]:
    """Numbers of models that one chart can show, being of one kind; and their names for its title if not all are."""
    members: dict[Hashable, list[int]] = {}
    for run, kind in kinds.items():
        members.setdefault(kind, []).append(run)
    several = len(members) > 1
    return [
        (f" ({', '.join(reported[run].label for run in same)})" if several else "", same) for same in members.values()
    ]


def _figure(found: dict[int, Quantity], resolutions: Sequence[int], addition: str, charts: Charts) -> Html:
    curves = [_group_curve(quantity, run) for run, quantity in found.items()]
    title = " / ".join(dict.fromkeys(quantity.title for quantity in found.values()))
    key, unit = next((quantity.key, quantity.unit) for quantity in found.values())
    chart = Chart(f"{title}{addition}", GROUP_AXIS, value_label(key, unit), curves, resolutions)
    numbers = _numbers_table(found, resolutions, charts.runs, f"{title} by latent group")
    return charts.figure(chart, folded(f"Numbers, {unit}" if unit else "Numbers", numbers))


def _group_curve(quantity: Quantity, run: int) -> Curve:
    values = np.array([group.value for group in quantity.groups], dtype=np.float64)
    errors = np.array([error_of(group) for group in quantity.groups], dtype=np.float64)
    return Curve(run, np.arange(len(values), dtype=np.float64), values, errors)


def _numbers_table(found: dict[int, Quantity], resolutions: Sequence[int], labels: Sequence[str], name: str) -> Html:
    rows: list[list[str]] = []
    for level in sorted(set(resolutions)):
        measured = [quantity.resolutions.get(level) for quantity in found.values()]
        if any(part is not None for part in measured):
            rows.append([f"all {level}×{level}", *("–" if part is None else _stated(part) for part in measured)])
    for group, level in enumerate(resolutions):
        rows.append([f"{group} ({level}×{level})", *(_stated(quantity.groups[group]) for quantity in found.values())])
    return table(["group", *(labels[run] for run in found)], rows, name, class_="numbers")


def last_rates(reported: Sequence[Reported], charts: Charts) -> Html:
    """The rate by latent group at the last held-out bound in each run's log."""
    curves = {run: curve for run, each in enumerate(reported) if (curve := _logged_rates(each, run)) is not None}
    figures = []
    for addition, runs in same_hierarchies(reported, dict.fromkeys(curves, "nats/dim")):
        title = f"rate by latent group, last held-out bound{addition}"
        shown = [curves[run] for run in runs]
        figures.append(charts.figure(Chart(title, GROUP_AXIS, "nats/dim", shown, reported[runs[0]].resolutions)))
    return joined(figures)


def _logged_rates(reported: Reported, run: int) -> Curve | None:
    lists = [record["group_rates_nats_per_dim"] for record in reported.records if "group_rates_nats_per_dim" in record]
    if not lists or not isinstance(lists[-1], list) or len(lists[-1]) != len(reported.resolutions):
        return None
    values = np.array([as_number(value) for value in lists[-1]], dtype=np.float64)
    return Curve(run, np.arange(len(values), dtype=np.float64), values)
