"""Noise in the latents: the change of the image over the noise's variance, by latent group, and in pictures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from vdvae_lr.evaluation.document import NOISE_PICTURE
from vdvae_lr.evaluation.noise_section import noise_bands
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.report.charts import Chart, Curve, alike, chart_figures
from vdvae_lr.report.content import Section
from vdvae_lr.report.hierarchy import (
    NOISE,
    group_charts,
    keys_by_group,
    measured,
    measured_curve,
    measured_keys,
    value_label,
)
from vdvae_lr.report.pictures import beside
from vdvae_lr.report.reported import Reported

_SHOWN_AT_ONCE = ("noise_rms_*", "noise_per_active_*")
_OVER_VARIANCE = ("noise_rms_*", "noise_ssim_*")
_BANDS = "noise_band_*"
_BAND_AXIS = "band, coarse to fine (above: resolution; 1×1: mean)"
_AXES = {
    "noise_*_raw_*": "variance of the noise, in the latents' own unit",
    "noise_*_prior_scale_*": "variance of the noise, in σ_p²",
}
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_CAPTION = (
    "Held-out images; the mean images of one posterior draw of the latents, without noise and with noise of that "
    "variance in every latent group; and how far these are apart, times 4."
)
_PICTURE = re.compile(NOISE_PICTURE.format(unit="(raw|prior_scale)", variance="(.+)"))
_UNITS = {"raw": "in the latents' own units", "prior_scale": "σ_p²"}


def section(models: Sequence[Reported]) -> Section:
    """Charts over the variance; by spatial scale and latent group for the strongest noise; and pictures."""
    families = _families(models)
    strongest = {list(family)[-1] for family in families}
    keys = [key for key in keys_by_group(models) if key in strongest and not fnmatchcase(key, _BANDS)]
    first = [key for key in keys if _matches(key, _SHOWN_AT_ONCE)]
    shown = [family for family in families if _matches(next(iter(family)), _OVER_VARIANCE)]
    over_variance = [chart for family in shown for chart in _variance_charts(models, family)]
    return Section(
        [model for model in models if model.evaluation is not None],
        chart_figures([*over_variance, *_band_charts(models), *group_charts(models, first)]),
        chart_figures(group_charts(models, [key for key in keys if key not in first])),
        beside=[each for name in _pictures(models) for each in beside(models, *name, _CAPTION)],
    )


def _pictures(models: Sequence[Reported]) -> list[tuple[str, str]]:
    """File name and title of every picture of noise that some model has."""
    names = dict.fromkeys(path.name for model in models for path in model.evaluation_pictures)
    found = {name: match for name in names if (match := _PICTURE.fullmatch(name))}
    return [(name, f"noise of variance {match[2]} {_UNITS[match[1]]}") for name, match in found.items()]


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _band_charts(models: Sequence[Reported]) -> list[Chart]:
    """RMS by spatial scale, coarse to fine, for the strongest noise in each unit that was measured on any model."""
    found = {model: noise_bands(model.evaluation.quantities) for model in models if model.evaluation is not None}
    strongest = {unit: (unit, variance) for bands in found.values() for unit, variance in bands}
    charts = []
    for condition in strongest.values():
        measured_on = {model: bands[condition] for model, bands in found.items() if condition in bands}
        for same, names in alike({model: tuple(bands) for model, bands in measured_on.items()}):
            first = next(iter(measured_on[same[0]].values()))
            title = f"image RMS by spatial scale, {first.title.partition(', ')[2]}{names}"
            curves = [_band_curve(model, measured_on[model]) for model in same]
            coarse_first = tuple(reversed(measured_on[same[0]]))
            charts.append(Chart(title, _BAND_AXIS, value_label(first.key, first.unit), curves, coarse_first))
    return charts


def _band_curve(model: Reported, bands: dict[int, Quantity]) -> Curve:
    totals = [quantity.total for _, quantity in reversed(bands.items()) if quantity.total is not None]
    return measured_curve(model, range(len(totals)), totals)


def _families(models: Sequence[Reported]) -> list[dict[str, float]]:
    """Keys that differ only in the noise's variance, with that variance, least first."""
    families: dict[str, dict[str, float]] = {}
    for key in measured_keys(models):
        name, _, variance = key.rpartition("_")
        if fnmatchcase(key, NOISE) and _NUMBER.fullmatch(variance):
            families.setdefault(name, {})[key] = float(variance)
    return [dict(sorted(family.items(), key=lambda item: item[1])) for family in families.values()]


def _variance_charts(models: Sequence[Reported], variances: Mapping[str, float]) -> list[Chart]:
    """A chart for each unit."""
    strongest = {model: quantity for key in variances for model, quantity in measured(models, key).items()}
    name = next(iter(variances))
    axis = next((words for pattern, words in _AXES.items() if fnmatchcase(name, pattern)), "variance of the noise")
    charts = []
    for same, names in alike({model: strongest[model].unit for model in models if model in strongest}):
        last = strongest[same[0]]
        title = f"{last.title.replace(f' {variances[last.key]:g}', '', 1)}, in all groups{names}"
        curves = [_variance_curve(model, variances) for model in same]
        charts.append(Chart(title, axis, value_label(last.key, last.unit), curves, scale="linear"))
    return charts


def _variance_curve(model: Reported, variances: Mapping[str, float]) -> Curve:
    found = {key: quantity.total for key in variances if (quantity := model.quantity(key)) and quantity.total}
    return measured_curve(model, [variances[key] for key in found], list(found.values()))
