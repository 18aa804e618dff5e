"""For whom the latents say least: how KL(q(z|x)‖p(z)) is spread over the inputs, and the inputs nearest collapse.

Shapes: P probabilities, L latent groups.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from vdvae_lr.evaluation.document import COLLAPSE_PICTURE, InputRates
from vdvae_lr.report.charts import Chart, Charts, Curve, Floats, legend
from vdvae_lr.report.data import Reported
from vdvae_lr.report.evaluation_table import short
from vdvae_lr.report.hierarchy import GROUP_AXIS, alike, same_hierarchies
from vdvae_lr.report.html import Html, boxes, element, folded, joined, table
from vdvae_lr.report.pictures import figure

_LOW, _MIDDLE, _HIGH = "0.05", "0.5", "0.95"
_NOTE = (
    "An input x is ε-collapsed when KL(q(z|x)‖p(z)) ≤ ε, with q for the true posterior. The curve says for which ε "
    "which share of the inputs is: the lower it runs, the less the latents say."
)


def inputs_nearest_collapse(reported: Sequence[Reported], charts: Charts) -> Html:
    """The quantile function of KL(x), its spread by latent group, and the inputs with least; nothing if unknown."""
    spreads = {
        run: each.evaluation.inputs
        for run, each in enumerate(reported)
        if each.evaluation is not None and each.evaluation.inputs is not None
    }
    if not spreads:
        return Html()
    figures = [*_quantile_figures(reported, spreads, charts), *_group_figures(reported, spreads, charts)]
    pictures = [
        figure(path, each.label, "Inputs with the least KL(x), least first: the image, and its reconstruction.")
        for each in reported
        for path in each.evaluation_pictures
        if path.name == COLLAPSE_PICTURE
    ]
    return joined(
        [
            legend(charts.runs, spreads),
            element("p", f"{_NOTE} {_images(spreads, charts.runs)}", class_="muted"),
            boxes("charts", *figures),
            boxes("pictures", *pictures),
            folded("Inputs nearest collapse, by number", _nearest_table(spreads, charts.runs)),
        ]
    )


def _images(spreads: Mapping[int, InputRates], labels: Sequence[str]) -> str:
    """Of how many images the curves and bands are."""
    counts = {run: f"{inputs.images:,}" for run, inputs in spreads.items()}
    if len(set(counts.values())) == 1:
        return f"Curves and bands are of {next(iter(counts.values()))} images."
    each = ", ".join(f"{count} for {labels[run]}" for run, count in counts.items())
    return f"Curves and bands are of other numbers of images: {each}."


def _quantile_figures(reported: Sequence[Reported], spreads: Mapping[int, InputRates], charts: Charts) -> list[Html]:
    units = {run: inputs.unit for run, inputs in spreads.items()}
    return [
        _quantile_figure({run: spreads[run] for run in runs}, units[runs[0]], addition, charts)
        for addition, runs in alike(reported, units)
    ]


def _quantile_figure(spreads: Mapping[int, InputRates], unit: str, addition: str, charts: Charts) -> Html:
    curves = [Curve(run, *_points(inputs.quantiles)) for run, inputs in spreads.items()]
    title = f"ε by the share of ε-collapsed inputs{addition}"
    chart = Chart(title, "share of inputs with KL(x) ≤ ε", f"ε, {unit}", curves)
    shares = sorted({share for inputs in spreads.values() for share in inputs.quantiles}, key=float)
    rows = [
        [f"{100 * float(share):g}%", *(short(inputs.quantiles.get(share, np.nan)) for inputs in spreads.values())]
        for share in shares
    ]
    head = ["share", *(charts.runs[run] for run in spreads)]
    return charts.figure(chart, folded(f"Numbers, {unit}", table(head, rows, "ε by share", class_="numbers")))


def _points(quantiles: Mapping[str, float]) -> tuple[Floats, Floats]:
    """Probabilities and quantiles, (P,) each."""
    points = sorted((float(share), value) for share, value in quantiles.items())
    shares, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return shares, values


def _group_figures(reported: Sequence[Reported], spreads: Mapping[int, InputRates], charts: Charts) -> list[Html]:
    curves = {run: curve for run, inputs in spreads.items() if (curve := _group_curve(inputs, run)) is not None}
    figures = []
    for addition, runs in same_hierarchies(reported, {run: spreads[run].unit for run in curves}):
        title = f"KL(x) by latent group: median, 5 to 95% of the inputs{addition}"
        shown = [curves[run] for run in runs]
        chart = Chart(title, GROUP_AXIS, spreads[runs[0]].unit, shown, reported[runs[0]].resolutions)
        figures.append(charts.figure(chart))
    return figures


def _group_curve(inputs: InputRates, run: int) -> Curve | None:
    if any(not {_LOW, _MIDDLE, _HIGH} <= group.keys() for group in inputs.group_quantiles):
        return None
    low, middle, high = (
        np.array([group[share] for group in inputs.group_quantiles], dtype=np.float64)
        for share in (_LOW, _MIDDLE, _HIGH)
    )  # (L,) each
    return Curve(run, np.arange(len(middle), dtype=np.float64), middle, band=(low, high))


def _nearest_table(spreads: Mapping[int, InputRates], labels: Sequence[str]) -> Html:
    """Ranks in rows; the number of the image in its split, and its KL(x)."""
    count = max(len(inputs.nearest_collapse) for inputs in spreads.values())
    rows = [[str(rank + 1), *(_nearest_cell(inputs, rank) for inputs in spreads.values())] for rank in range(count)]
    return table(["", *(labels[run] for run in spreads)], rows, "Inputs nearest collapse", class_="numbers")


def _nearest_cell(inputs: InputRates, rank: int) -> str:
    if rank >= len(inputs.nearest_collapse):
        return "–"
    number, rate = inputs.nearest_collapse[rank]
    return f"image {number}: {short(rate)} {inputs.unit}"
