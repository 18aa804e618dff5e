"""The quantities of evaluations: in total, and over the hierarchy from the coarsest latent group.

Shapes: L latent groups, K singular values.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.report.charts import Chart, Curve, chart_figures
from vdvae_lr.report.content import MISSING, Cell, Section, Table
from vdvae_lr.report.evaluation_table import stated
from vdvae_lr.report.reported import Floats, Reported, as_number

GROUP_AXIS = "latent group, 0 = coarsest (above: resolution)"
CHIEF_BY_GROUP = (
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
"""Keys of the charts that are shown at once, in order. The others are shown on demand."""
NOISE = "noise_*"
_CHIEF_IN_TOTAL = (
    *("negative_elbo", "negative_elbo_bits", "rate", "distortion", "importance_bound", "information_from_samples"),
    *("recovered_sampled_image", "recovered_mean_image", "active_latents", "active_channels", "prior_scale"),
    *("latent_r2_sampled_image", "posterior_gap", "noise_rms_*", "largest_singular_value", "theorem_bound"),
)
_WITHOUT_NOISE = "noise_*_0.0"
_SAME_IN_OTHER_UNITS = ("*_bits", "*_content")
_SCALES = {"noise_rms_*": "RMS, 1 = all 255 levels", "noise_ssim_*": "similarity, 1 = the same"}
_SPECTRUM_UNITS = {"raw": "latents as they are", "prior_scale": "latents in σ_p"}


def totals(models: Sequence[Reported]) -> dict[str, Any]:
    """Tables of the quantities in total, for the template; empty if there are none.

    `chief` and `every` are the tables. `base` is the model that the others are compared with, empty if it is alone.
    """
    measured = [model for model in models if model.evaluation is not None]
    keys = [key for key in quantity_keys(models) if any(total_of(model, key) is not None for model in models)]
    if not keys:
        return {}
    chief = [key for key in _matching(keys, _CHIEF_IN_TOTAL) if not fnmatchcase(key, _WITHOUT_NOISE)]

    def table(name: str, shown: Iterable[str]) -> Table:
        rows = [
            [_quantity_cell(measured, key), *(_total_cell(model, measured[0], key) for model in models)]
            for key in shown
        ]
        return Table(name, ["", *(model.label for model in models)], rows)

    return {
        "chief": table("Chief quantities in total", chief),
        "every": table("All quantities in total", keys),
        "base": measured[0].label if len(measured) > 1 else "",
    }


def _matching(keys: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """The keys that match a pattern, in the order of the patterns."""
    return list(dict.fromkeys(key for pattern in patterns for key in keys if fnmatchcase(key, pattern)))


def _quantity_cell(models: Sequence[Reported], key: str) -> Cell:
    """Title, unit and number of images. If the models differ in one, such as by a number of draws, it shows all."""
    found = [quantity for model in models if (quantity := model.quantity(key)) is not None]
    units = _alternatives(quantity.unit for quantity in found) or "no unit"
    counts = _alternatives(f"{quantity.total.images:,}" for quantity in found if quantity.total is not None)
    return Cell(_alternatives(quantity.title for quantity in found), small=f"{units}, {counts} images")


def _alternatives(words: Iterable[str]) -> str:
    return " / ".join(word for word in dict.fromkeys(words) if word)


def _total_cell(model: Reported, base: Reported, key: str) -> str | Cell:
    """A total. If it is the same quantity as the base's, in the same unit, the difference stands below."""
    quantity, reference = model.quantity(key), base.quantity(key)
    if quantity is None or quantity.total is None:
        return MISSING
    text = _stated(quantity.total)
    if model is base or reference is None or reference.total is None:
        return text
    difference = quantity.total.value - reference.total.value
    if (quantity.title, quantity.unit) != (reference.title, reference.unit) or not np.isfinite(difference):
        return text
    return Cell(text, small=f"{difference:+.3g}")


def hierarchy_section(models: Sequence[Reported]) -> Section:
    """The quantities by latent group, without responses to noise, and the decoder's leading singular values."""
    keys = keys_by_group(models)
    chief = _matching(keys, CHIEF_BY_GROUP)
    apart = {*chief, *_matching(keys, (NOISE, *_SAME_IN_OTHER_UNITS))}
    return Section(
        [model for model in models if model.evaluation is not None],
        chart_figures([*group_charts(models, chief), *_spectra(models)]),
        chart_figures(group_charts(models, [key for key in keys if key not in apart])),
    )


def quantity_keys(models: Sequence[Reported]) -> list[str]:
    """Keys of all quantities measured on any model, in order."""
    evaluations = [model.evaluation for model in models if model.evaluation is not None]
    return list(dict.fromkeys(quantity.key for evaluation in evaluations for quantity in evaluation.quantities))


def keys_by_group(models: Sequence[Reported]) -> list[str]:
    """Keys of the quantities that have parts by latent group."""
    return [key for key in quantity_keys(models) if _measured_by_group(models, key)]


def _measured_by_group(models: Sequence[Reported], key: str) -> dict[Reported, Quantity]:
    found = {model: model.quantity(key) for model in models}
    return {model: quantity for model, quantity in found.items() if quantity is not None and quantity.groups}


def total_of(model: Reported, key: str) -> Measurement | None:
    """A quantity in total; None if it was not measured."""
    quantity = model.quantity(key)
    return None if quantity is None else quantity.total


def alike(kinds: Mapping[Reported, Hashable]) -> list[tuple[list[Reported], str]]:
    """Split models into those that one chart can show, because their kinds are equal.

    Returns the models of each chart, and their labels for its title: " (a, b)", or empty for a single chart.
    """
    charts: dict[Hashable, list[Reported]] = {}
    for model, kind in kinds.items():
        charts.setdefault(kind, []).append(model)
    return [
        (same, f" ({', '.join(model.label for model in same)})" if len(charts) > 1 else "") for same in charts.values()
    ]


def group_charts(models: Sequence[Reported], keys: Iterable[str]) -> list[Chart]:
    """A chart over the hierarchy for each key. Models of another hierarchy or unit get a chart of their own."""
    charts = []
    for key in keys:
        found = _measured_by_group(models, key)
        kinds = {model: (model.resolutions, quantity.unit) for model, quantity in found.items()}
        charts += [_group_chart({model: found[model] for model in same}, names) for same, names in alike(kinds)]
    return charts


def _group_chart(found: Mapping[Reported, Quantity], names: str) -> Chart:
    title = _alternatives(quantity.title for quantity in found.values())
    model, quantity = next(iter(found.items()))
    return Chart(
        f"{title}{names}",
        GROUP_AXIS,
        value_label(quantity.key, quantity.unit),
        [_curve(model, quantity.groups) for model, quantity in found.items()],
        model.resolutions,
        numbers=_numbers(found, model.resolutions, f"{title} by latent group"),
    )


def _curve(model: Reported, groups: Sequence[Measurement]) -> Curve:
    values = np.array([group.value for group in groups], dtype=np.float64)
    errors = np.array([error_of(group) for group in groups], dtype=np.float64)
    return Curve(model, np.arange(len(values), dtype=np.float64), values, errors)


def _numbers(found: Mapping[Reported, Quantity], resolutions: Sequence[int], name: str) -> Table:
    """A row for each resolution that was measured, then one for each latent group."""
    quantities = list(found.values())
    rows = []
    for level in sorted(set(resolutions)):
        parts = [quantity.resolutions.get(level) for quantity in quantities]
        if any(part is not None for part in parts):
            rows.append([f"all {level}×{level}", *(MISSING if part is None else _stated(part) for part in parts)])
    for group, level in enumerate(resolutions):
        rows.append([f"{group} ({level}×{level})", *(_stated(quantity.groups[group]) for quantity in quantities)])
    return Table(name, ["group", *(model.label for model in found)], rows, unit=quantities[0].unit)


def value_label(key: str, unit: str) -> str:
    """The label of an axis that holds a quantity: its unit, or words on its scale."""
    return unit or next((words for pattern, words in _SCALES.items() if fnmatchcase(key, pattern)), "value (no unit)")


def _stated(measured: Measurement) -> str:
    return " ".join(stated(measured)).strip()


def error_of(measured: Measurement) -> float:
    """The standard error; NaN if there is none."""
    return float("nan") if measured.standard_error is None else measured.standard_error


def _spectra(models: Sequence[Reported]) -> list[Chart]:
    """The leading singular values of the decoder's Jacobian, averaged over real images; a chart for each unit."""
    return [
        Chart(
            f"leading singular values of the decoder's Jacobian, all groups, {words}",
            "number, 1 = largest",
            "mean over images",
            [
                Curve(model, np.arange(1.0, len(values) + 1), values)
                for model in models
                if len(values := _mean_spectrum(model, unit))
            ],
        )
        for unit, words in _SPECTRUM_UNITS.items()
    ]


def _mean_spectrum(model: Reported, unit: str) -> Floats:
    """The mean of the singular values (K,) that every image has. Entries of another form are left out."""
    found = model.evaluation.details.get("spectra") if model.evaluation is not None else None
    spectra = [
        [as_number(value) for value in entry["singular_values"]]
        for entry in (found if isinstance(found, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("singular_values"), list)
        and (entry.get("of"), entry.get("unit"), entry.get("group", 0)) == ("images", unit, None)
    ]
    count = min(map(len, spectra), default=0)
    return np.array([spectrum[:count] for spectrum in spectra or [[]]], dtype=np.float64).mean(0)
