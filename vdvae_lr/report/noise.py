"""Noise in the latents: the change of the image over the noise's variance, by latent group, and in pictures."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from vdvae_lr.evaluation.document import NOISE_PICTURE
from vdvae_lr.report.charts import Chart, Curve, chart_figures
from vdvae_lr.report.content import Section
from vdvae_lr.report.hierarchy import (
    NOISE,
    alike,
    error_of,
    group_charts,
    keys_by_group,
    quantity_keys,
    total_of,
    value_label,
)
from vdvae_lr.report.pictures import evaluation_figures
from vdvae_lr.report.reported import Reported

_SHOWN_AT_ONCE = "noise_rms_*"
_AXES = {
    "noise_*_raw_*": "variance of the noise, in the latents' own unit",
    "noise_*_prior_scale_*": "variance of the noise, in σ_p²",
}
_CAPTION = "One posterior pass, then noise of the stated variance in every latent group."


def noise_section(models: Sequence[Reported]) -> Section:
    """Charts over the variance, charts by latent group for the strongest noise, and pictures."""
    families = _families(models)
    strongest = {keys[-1] for keys in families}
    keys = [key for key in keys_by_group(models) if key in strongest]
    first = [key for key in keys if fnmatchcase(key, _SHOWN_AT_ONCE)]
    over_variance = [chart for family in families for chart in _variance_charts(models, family)]
    return Section(
        [model for model in models if model.evaluation is not None],
        chart_figures([*over_variance, *group_charts(models, first)]),
        chart_figures(group_charts(models, [key for key in keys if key not in first])),
        evaluation_figures(models, NOISE_PICTURE, _CAPTION),
    )


def _families(models: Sequence[Reported]) -> list[list[str]]:
    """Keys that differ only in the noise's variance, least first."""
    families: dict[str, list[str]] = {}
    for key in quantity_keys(models):
        if fnmatchcase(key, NOISE) and np.isfinite(_variance(key)):
            families.setdefault(key.rpartition("_")[0], []).append(key)
    return [sorted(keys, key=_variance) for keys in families.values()]


def _variance(key: str) -> float:
    try:
        return float(key.rpartition("_")[2])
    except ValueError:
        return float("nan")


def _variance_charts(models: Sequence[Reported], keys: Sequence[str]) -> list[Chart]:
    """A chart for each unit."""
    found = {model: [quantity for key in keys if (quantity := model.quantity(key)) is not None] for model in models}
    strongest = {model: quantities[-1] for model, quantities in found.items() if quantities}
    axis = next((words for pattern, words in _AXES.items() if fnmatchcase(keys[-1], pattern)), "variance of the noise")
    charts = []
    for same, names in alike({model: quantity.unit for model, quantity in strongest.items()}):
        last = strongest[same[0]]
        title = f"{last.title.replace(f' {_variance(last.key):g}', '', 1)}, in all groups{names}"
        curves = [_variance_curve(model, keys) for model in same]
        charts.append(Chart(title, axis, value_label(last.key, last.unit), curves, scale="linear"))
    return charts


def _variance_curve(model: Reported, keys: Sequence[str]) -> Curve:
    found = [(_variance(key), total) for key in keys if (total := total_of(model, key)) is not None]
    points = np.array([(variance, total.value, error_of(total)) for variance, total in found], dtype=np.float64)
    variances, values, errors = points.reshape(-1, 3).T
    return Curve(model, variances, values, errors)
