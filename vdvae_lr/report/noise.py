"""Noise in the latents: how the image answers, over the noise's variance, by latent group, and in pictures."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from vdvae_lr.evaluation.document import NOISE_PICTURE
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.report.charts import Chart, Charts, Curve, legend
from vdvae_lr.report.data import Reported
from vdvae_lr.report.hierarchy import (
    BARS,
    NOISE,
    alike,
    error_of,
    evaluated,
    group_figures,
    keys_by_group,
    quantity_keys,
    total_of,
    value_label,
)
from vdvae_lr.report.html import Html, boxes, element, folded, joined
from vdvae_lr.report.pictures import figure

_AT_ONCE = "noise_rms_*"
_AXES = {
    "noise_*_raw_*": "variance of the noise, in the latents' own unit",
    "noise_*_prior_scale_*": "variance of the noise, in σ_p²",
}


def noise_response(reported: Sequence[Reported], charts: Charts) -> Html:
    """Charts and pictures; nothing where no model was measured."""
    pictures = [
        figure(path, each.label, "One posterior pass, then noise of the stated variance in every latent group.")
        for each in reported
        for path in each.evaluation_pictures
        if path.name == NOISE_PICTURE
    ]
    families = _families(reported)
    by_level = [figure for keys in families for figure in _level_figures(reported, keys, charts)]
    strongest = {keys[-1] for keys in families}
    keys = [key for key in keys_by_group(reported) if key in strongest]
    first = [key for key in keys if fnmatchcase(key, _AT_ONCE)]
    by_group = group_figures(reported, first, charts)
    more = boxes("charts", group_figures(reported, [key for key in keys if key not in first], charts))
    content = joined(
        [
            boxes("charts", *by_level, by_group),
            folded("Other measures by latent group", more) if more else "",
            boxes("pictures", *pictures),
        ]
    )
    note = element("p", BARS, class_="muted")
    return joined([legend(charts.runs, evaluated(reported)), note, content]) if content else Html()


def _families(reported: Sequence[Reported]) -> list[list[str]]:
    """Keys that differ in the noise's variance only, from the least up."""
    families: dict[str, list[str]] = {}
    for key in quantity_keys(reported):
        if fnmatchcase(key, NOISE) and np.isfinite(_variance(key)):
            families.setdefault(key.rpartition("_")[0], []).append(key)
    return [sorted(keys, key=_variance) for keys in families.values()]


def _variance(key: str) -> float:
    try:
        return float(key.rpartition("_")[2])
    except ValueError:
        return float("nan")


def _level_figures(reported: Sequence[Reported], keys: Sequence[str], charts: Charts) -> list[Html]:
    """One chart; several where the models' units differ."""
    known = {run: found[-1] for run, each in enumerate(reported) if (found := _found(each, keys))}
    axis = next((words for pattern, words in _AXES.items() if fnmatchcase(keys[-1], pattern)), "variance of the noise")
    figures = []
    for addition, runs in alike(reported, {run: quantity.unit for run, quantity in known.items()}):
        last = known[runs[0]]
        title = f"{last.title.replace(f' {_variance(last.key):g}', '', 1)}, in all groups{addition}"
        curves = [_level_curve(reported[run], run, keys) for run in runs]
        figures.append(charts.figure(Chart(title, axis, value_label(last.key, last.unit), curves, scale="linear")))
    return figures


def _found(reported: Reported, keys: Sequence[str]) -> list[Quantity]:
    evaluation = reported.evaluation
    return [] if evaluation is None else [found for key in keys if (found := evaluation.quantity(key)) is not None]


def _level_curve(reported: Reported, run: int, keys: Sequence[str]) -> Curve:
    found = [(_variance(key), total) for key in keys if (total := total_of(reported, key)) is not None]
    points = np.array([(level, total.value, error_of(total)) for level, total in found], dtype=np.float64)
    levels, values, errors = points.reshape(-1, 3).T
    return Curve(run, levels, values, errors)
