"""How KL(q(z|x)‖p(z)) spreads over the inputs x, and the inputs nearest collapse.

Shapes: P probabilities, L latent groups.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np

from vdvae_lr.evaluation.document import COLLAPSE_PICTURE
from vdvae_lr.evaluation.quantities import InputRates
from vdvae_lr.report.charts import Chart, Curve, alike, chart_figures
from vdvae_lr.report.content import MISSING, Section, Table
from vdvae_lr.report.evaluation_table import short
from vdvae_lr.report.hierarchy import GROUP_AXIS
from vdvae_lr.report.pictures import beside
from vdvae_lr.report.reported import Reported

_LOW, _MIDDLE, _HIGH = "0.05", "0.5", "0.95"
_CAPTION = "The inputs of each model with the least KL(x), least first, above their reconstructions."


def section(models: Sequence[Reported]) -> Section:
    """The quantile function of KL(x), its spread by latent group, and the inputs with the least KL(x)."""
    spreads = {
        model: model.evaluation.inputs
        for model in models
        if model.evaluation is not None and model.evaluation.inputs is not None
    }
    if not spreads:
        return Section()
    return Section(
        list(spreads),
        chart_figures([*_quantile_charts(spreads), *_group_charts(spreads)]),
        beside=beside(models, COLLAPSE_PICTURE, "inputs nearest collapse", _CAPTION),
        table=_nearest_table(spreads),
        note=_image_counts(spreads),
    )


def _image_counts(spreads: Mapping[Reported, InputRates]) -> str:
    counts = {model.label: f"{inputs.images:,}" for model, inputs in spreads.items()}
    if len(set(counts.values())) == 1:
        return f"Curves and bands are of {next(iter(counts.values()))} images."
    each = ", ".join(f"{count} for {label}" for label, count in counts.items())
    return f"The models were measured on different numbers of images: {each}."


def _quantile_charts(spreads: Mapping[Reported, InputRates]) -> list[Chart]:
    """ε over the share of ε-collapsed inputs, a chart for each unit."""
    return [
        Chart(
            f"ε by the share of ε-collapsed inputs{names}",
            "share of inputs with KL(x) ≤ ε",
            f"ε, {spreads[same[0]].unit}",
            [_quantile_curve(model, spreads[model].quantiles) for model in same],
            numbers=_quantile_table({model: spreads[model] for model in same}),
        )
        for same, names in alike({model: inputs.unit for model, inputs in spreads.items()})
    ]


def _quantile_curve(model: Reported, quantiles: Mapping[str, float]) -> Curve:
    points = sorted((float(share), value) for share, value in quantiles.items())
    shares, values = np.array(points, dtype=np.float64).reshape(-1, 2).T  # (P,) each
    return Curve(model, shares, values)


def _quantile_table(spreads: Mapping[Reported, InputRates]) -> Table:
    shares = sorted({share for inputs in spreads.values() for share in inputs.quantiles}, key=float)
    rows = [
        [f"{100 * float(share):g}%", *(short(inputs.quantiles.get(share, np.nan)) for inputs in spreads.values())]
        for share in shares
    ]
    unit = next(iter(spreads.values())).unit
    return Table("ε by share", ["share", *(model.label for model in spreads)], rows, unit=unit)


def _group_charts(spreads: Mapping[Reported, InputRates]) -> list[Chart]:
    """The spread of KL(x) over the hierarchy. Models of another hierarchy or unit get a chart of their own."""
    curves = {model: curve for model, inputs in spreads.items() if (curve := _band_curve(model, inputs)) is not None}
    return [
        Chart(
            f"KL(x) by latent group: median, 5 to 95% of the inputs{names}",
            GROUP_AXIS,
            spreads[same[0]].unit,
            [curves[model] for model in same],
            same[0].resolutions,
        )
        for same, names in alike({model: (model.resolutions, spreads[model].unit) for model in curves})
    ]


def _band_curve(model: Reported, inputs: InputRates) -> Curve | None:
    if any(not {_LOW, _MIDDLE, _HIGH} <= group.keys() for group in inputs.group_quantiles):
        return None
    low, middle, high = (
        np.array([group[share] for group in inputs.group_quantiles], dtype=np.float64)
        for share in (_LOW, _MIDDLE, _HIGH)
    )  # (L,) each
    return Curve(model, np.arange(len(middle), dtype=np.float64), middle, band=(low, high))


def _nearest_table(spreads: Mapping[Reported, InputRates]) -> Table:
    """A row for each rank: the number of the image in its split, and its KL(x)."""
    columns = [
        [f"image {number}: {short(rate)} {inputs.unit}" for number, rate in inputs.nearest_collapse]
        for inputs in spreads.values()
    ]
    rows = [[str(rank), *cells] for rank, cells in enumerate(zip_longest(*columns, fillvalue=MISSING), start=1)]
    return Table("Inputs nearest collapse", ["", *(model.label for model in spreads)], rows)
