"""Noise in the latents: how the image answers, over the noise's variance, by latent group, and in pictures."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from vdvae_lr.evaluation.document import NOISE_PICTURE
from vdvae_lr.evaluation.report_charts import Chart, Charts, Curve, legend
from vdvae_lr.evaluation.report_data import Reported
from vdvae_lr.evaluation.report_hierarchy import (
    NOISE,
    error_of,
    evaluated,
    group_figures,
    keys_by_group,
    quantity_keys,
    total_of,
    unit_label,
)
from vdvae_lr.evaluation.report_html import Html, boxes, folded, joined
from vdvae_lr.evaluation.report_pictures import figure

_AT_ONCE = "noise_rms_*"


def noise_response(reported: Sequence[Reported], charts: Charts) -> Html:
    """Charts and pictures; nothing where no model was measured."""
    pictures = [
        figure(path, each.label, "One posterior pass, then noise of the stated variance in every latent group.")
        for each in reported
        for path in each.evaluation_pictures
        if path.name == NOISE_PICTURE
    ]
    families = _families(reported)
    by_level = [_level_figure(reported, keys, charts) for keys in families]
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
    return joined([legend(charts.runs, evaluated(reported)), content]) if content else Html()


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


def _level_figure(reported: Sequence[Reported], keys: Sequence[str], charts: Charts) -> Html:
    known = next(
        quantity
        for each in reported
        if each.evaluation is not None and (quantity := each.evaluation.quantity(keys[-1])) is not None
    )
    title = f"{known.title.replace(f' {_variance(keys[-1]):g}', '', 1)}, in all groups"
    curves = [_level_curve(each, run, keys) for run, each in enumerate(reported)]
    return charts.figure(Chart(title, "variance of the noise", unit_label(known.unit), curves, scale="linear"))


def _level_curve(reported: Reported, run: int, keys: Sequence[str]) -> Curve:
    found = [(_variance(key), total) for key in keys if (total := total_of(reported, key)) is not None]
    points = np.array([(level, total.value, error_of(total)) for level, total in found], dtype=np.float64)
    levels, values, errors = points.reshape(-1, 3).T
    return Curve(run, levels, values, errors)
