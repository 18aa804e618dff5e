"""Noise in the latents: the change of the image over the noise's variance, by latent group, and in pictures."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from vdvae_lr.evaluation.document import NOISE_PICTURE
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
from vdvae_lr.report.pictures import evaluation_figures
from vdvae_lr.report.reported import Reported

_SHOWN_AT_ONCE = "noise_rms_*"
_AXES = {
    "noise_*_raw_*": "variance of the noise, in the latents' own unit",
    "noise_*_prior_scale_*": "variance of the noise, in σ_p²",
}
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_CAPTION = "One posterior pass, then noise of the stated variance in every latent group."


def section(models: Sequence[Reported]) -> Section:
    """Charts over the variance, charts by latent group for the strongest noise, and pictures."""
    families = _families(models)
    strongest = {list(family)[-1] for family in families}
    keys = [key for key in keys_by_group(models) if key in strongest]
    first = [key for key in keys if fnmatchcase(key, _SHOWN_AT_ONCE)]
    over_variance = [chart for family in families for chart in _variance_charts(models, family)]
    return Section(
        [model for model in models if model.evaluation is not None],
        chart_figures([*over_variance, *group_charts(models, first)]),
        chart_figures(group_charts(models, [key for key in keys if key not in first])),
        evaluation_figures(models, NOISE_PICTURE, _CAPTION),
    )


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
