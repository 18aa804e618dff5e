"""The quantities of evaluations over the hierarchy, from the coarsest latent group.

Shapes: L latent groups, K singular values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from vdvae_lr.evaluation.differences import difference
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.report.charts import Chart, Curve, alike, chart_figures
from vdvae_lr.report.content import MISSING, Section, Table
from vdvae_lr.report.evaluation_table import READERS, stated_text
from vdvae_lr.report.reported import Floats, Reported, as_number

GROUP_AXIS = "latent group, 0 = coarsest (above: resolution)"
CHIEF_BY_GROUP = (
    *("rate", "active_channels", "active_channels_relative", "information_from_samples", "recovered_sampled_image"),
    *("latent_r2_sampled_image", "largest_singular_value", "largest_singular_value_prior_scale"),
    *("posterior_gap", "prior_scale"),
)
"""Keys of the charts that are shown at once, in order. The others are shown on demand."""
NOISE = "noise_*"
_SAME_IN_OTHER_UNITS = ("*_bits", "*_content")
_SCALES = {
    "noise_ssim_*": "similarity, 1 = the same",
    NOISE: "RMS, 1 = all 255 levels",
}
_SPECTRUM_UNITS = {"raw": "latents as they are", "prior_scale": "latents in σ_p"}


def measured_keys(models: Sequence[Reported]) -> list[str]:
    """Keys of all quantities measured on any model, in order."""
    evaluations = [model.evaluation for model in models if model.evaluation is not None]
    return list(dict.fromkeys(quantity.key for evaluation in evaluations for quantity in evaluation.quantities))


def measured(models: Iterable[Reported], key: str) -> dict[Reported, Quantity]:
    """The quantity of that key from each model that it was measured on."""
    return {model: quantity for model in models if (quantity := model.quantity(key)) is not None}


def alternatives(words: Iterable[str]) -> str:
    """Different words of several models, such as titles that name a number of draws."""
    return " / ".join(word for word in dict.fromkeys(words) if word)


def matching(keys: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """The keys that match a pattern, in the order of the patterns."""
    return list(dict.fromkeys(key for pattern in patterns for key in keys if fnmatchcase(key, pattern)))


def section(models: Sequence[Reported]) -> Section:
    """The quantities by latent group, without responses to noise, and the decoder's leading singular values.

    Chief quantities of several models are shown as differences from the first one, and as they are on demand: curves of
    models that were fine-tuned from one another coincide.
    """
    keys = keys_by_group(models)
    chief = matching(keys, CHIEF_BY_GROUP)
    apart = {*chief, *matching(keys, (NOISE, *_SAME_IN_OTHER_UNITS))}
    differences = [chart for key in chief for chart in difference_charts(models, key)]
    as_they_are, rest = group_charts(models, chief), group_charts(models, [key for key in keys if key not in apart])
    return Section(
        [model for model in models if model.evaluation is not None],
        chart_figures([*_reader_charts(models), *(differences or as_they_are), *_spectra(models)]),
        chart_figures([*(as_they_are if differences else []), *rest]),
    )


def difference_charts(models: Sequence[Reported], key: str) -> list[Chart]:
    """The differences by latent group from the first evaluated model, of all models that were measured like it.

    No chart if no group of any model differs.
    """
    found = {model: quantity for model, quantity in measured(models, key).items() if quantity.groups}
    if not found:
        return []
    (base, theirs), *others = found.items()
    curves = [_difference_curve(model, ours, theirs) for model, ours in others if _are_alike(model, base, key)]
    if not any(np.any(curve.y) for curve in curves):
        return []
    title = f"{theirs.title}: difference from {base.label}"
    label = value_label(key, theirs.unit)
    return [Chart(title, GROUP_AXIS, label, curves, base.resolutions, scale="signed")]


def _are_alike(model: Reported, base: Reported, key: str) -> bool:
    assert model.evaluation is not None and base.evaluation is not None  # both were measured
    return model.resolutions == base.resolutions and difference(model.evaluation, base.evaluation, key) is not None


def _difference_curve(model: Reported, ours: Quantity, theirs: Quantity) -> Curve:
    apart = [one.value - other.value for one, other in zip(ours.groups, theirs.groups, strict=True)]
    return Curve(model, np.arange(len(apart), dtype=np.float64), np.array(apart, dtype=np.float64))


def _reader_charts(models: Sequence[Reported]) -> list[Chart]:
    """Eq. 5 by latent group as several encoders read it, a chart for each model that has several."""
    charts = []
    for model in models:
        found = {words: model.quantity(key) for key, words in READERS.items()}
        curves = [
            measured_curve(replace(model, label=words, index=index), range(len(read.groups)), read.groups)
            for index, (words, read) in enumerate(found.items())
            if read is not None and read.groups
        ]
        if len(curves) > 1:
            title = f"eq. 5 of {model.label}, by the encoder that reads it"
            charts.append(Chart(title, GROUP_AXIS, "nats/dim", curves, model.resolutions, scale="signed", legend=True))
    return charts


def keys_by_group(models: Sequence[Reported]) -> list[str]:
    """Keys of the quantities that have parts by latent group."""
    return [key for key in measured_keys(models) if any(each.groups for each in measured(models, key).values())]


def group_charts(models: Sequence[Reported], keys: Iterable[str]) -> list[Chart]:
    """A chart over the hierarchy for each key. Models of another hierarchy or unit get a chart of their own."""
    charts = []
    for key in keys:
        found = {model: quantity for model, quantity in measured(models, key).items() if quantity.groups}
        kinds = {model: (model.resolutions, quantity.unit) for model, quantity in found.items()}
        charts += [_group_chart({model: found[model] for model in same}, names) for same, names in alike(kinds)]
    return charts


def _group_chart(found: Mapping[Reported, Quantity], names: str) -> Chart:
    title = alternatives(quantity.title for quantity in found.values())
    model, quantity = next(iter(found.items()))
    return Chart(
        f"{title}{names}",
        GROUP_AXIS,
        value_label(quantity.key, quantity.unit),
        [measured_curve(model, range(len(each.groups)), each.groups) for model, each in found.items()],
        model.resolutions,
        numbers=_numbers(found, model.resolutions, f"{title} by latent group"),
    )


def measured_curve(model: Reported, x: Sequence[float], measurements: Sequence[Measurement]) -> Curve:
    """A curve through measured values, with bars where there is a standard error."""
    values = [(each.value, each.standard_error) for each in measurements]
    y, errors = np.array(values, dtype=np.float64).reshape(-1, 2).T  # NaN for no standard error
    return Curve(model, np.array(x, dtype=np.float64), y, errors)


def _numbers(found: Mapping[Reported, Quantity], resolutions: Sequence[int], name: str) -> Table:
    """A row for each resolution that was measured, then one for each latent group."""
    quantities = list(found.values())
    rows = []
    for level in sorted(set(resolutions)):
        parts = [quantity.resolutions.get(level) for quantity in quantities]
        if any(parts):
            rows.append([f"all {level}×{level}", *(MISSING if part is None else stated_text(part) for part in parts)])
    for group, level in enumerate(resolutions):
        rows.append([f"{group} ({level}×{level})", *(stated_text(quantity.groups[group]) for quantity in quantities)])
    return Table(name, ["group", *(model.label for model in found)], rows, unit=quantities[0].unit)


def value_label(key: str, unit: str) -> str:
    """The label of an axis that holds a quantity: its unit, or words on its scale."""
    return unit or next((words for pattern, words in _SCALES.items() if fnmatchcase(key, pattern)), "value (no unit)")


def _spectra(models: Sequence[Reported]) -> list[Chart]:
    """The leading singular values of the decoder's Jacobian, averaged over real images; a chart for each unit."""
    charts = []
    for unit, words in _SPECTRUM_UNITS.items():
        spectra = {model: _mean_spectrum(model, unit) for model in models}
        curves = [Curve(model, np.arange(1.0, len(values) + 1), values) for model, values in spectra.items()]
        title = f"leading singular values of the decoder's Jacobian, all groups, {words}"
        charts.append(Chart(title, "number, 1 = largest", "mean over images", curves))
    return charts


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
