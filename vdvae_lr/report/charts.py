"""Charts of up to four models, drawn by matplotlib as SVG images.

A model has the same colour, dash and marker in every chart. People with any colour vision can tell the colours apart:
they are darker versions of Okabe and Ito's. Images have no background and are drawn for a light page. On a dark page
style.css inverts their lightness and keeps their hues.

Shapes: N points of a curve, L latent groups.
"""

import io
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, NullLocator, SymmetricalLogLocator

from vdvae_lr.report.content import Figure, Table
from vdvae_lr.report.reported import Floats, Reported

_COLOURS = ("#0072b2", "#d55e00", "#00805d", "#b0508a")
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2.5)), (0, (6, 2, 1.5, 2)), (0, (1.8, 1.8)))
_MARKERS = ("o", "s", "^", "D")
_INK, _MUTED = "#1a1d21", "#59616b"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: smaller than paths, and the reader's fonts have every letter
    "svg.hashsalt": "vdvae_lr",  # otherwise identifiers are random
    "font.size": 11,
    "font.sans-serif": ["DejaVu Sans"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "grid.color": _MUTED,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.color": _MUTED,
    "ytick.labelcolor": _INK,
}
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # none of it
_WIDTH, _HEIGHT = 374, 260  # points, shown as pixels
_LEFT, _RIGHT, _BOTTOM, _TOP = 76, 10, 44, 18  # margins; matplotlib's layout engines take longer than the drawing
_AXES_WIDTH = _WIDTH - _LEFT - _RIGHT
_LARGEST_DRAWN = 1e150  # an axis of larger values overflows
_ROW = 13  # points: height of a row of resolutions
_SIDE = 0.7  # groups: from the first or last one to the edge
_DECADES = 2  # positive values that span as many get a logarithmic scale
_NEAREST_LABEL = 3
"""A label nearer to 0 than this, in linear ranges of a scale with both signs, would lie on that of 0."""
_SIGNED_DECADES = 3  # of a signed scale, to each side of 0
_NEGLIGIBLE = 1 / 500  # a value below 0 by a smaller share of the largest value does not count as signed
_MOST_NAMED = 6  # values below a logarithmic scale
_CROWDED = 24  # more points than this get small markers


@dataclass
class Curve:
    """Points (N,) of one model. A point that is not finite, or would overflow an axis, leaves a gap."""

    model: Reported
    x: Floats
    y: Floats
    error: Floats | None = None
    """Standard errors, drawn as bars where they are finite."""
    band: tuple[Floats, Floats] | None = None
    """Lower and upper values, drawn as an area."""
    marks: Literal["line", "points", "both"] = "both"

    def __post_init__(self) -> None:
        """Replace values that no axis can hold, as in a damaged file or after a divergence."""
        self.y = _drawable(self.y)
        self.error = None if self.error is None else _drawable(self.error)
        self.band = None if self.band is None else (_drawable(self.band[0]), _drawable(self.band[1]))


def _drawable(values: Floats) -> Floats:
    return np.where(np.abs(values) < _LARGEST_DRAWN, values, np.nan)


@dataclass(frozen=True)
class Chart:
    """Curves over one quantity."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    resolutions: Sequence[int] = ()
    """Resolution of each of the L latent groups, marked above the chart; empty if x is not the group."""
    scale: Literal["auto", "linear", "signed"] = "auto"
    """auto: logarithmic if the positive values span two decades or more, and none lies far below 0. signed: logarithmic
    to both sides of 0, and linear near it, if the sizes of the values span as much."""
    legend: bool = False
    """Whether the curves are named inside the chart: they are not the models of the section."""
    numbers: Table | None = None
    """A table to show below the chart."""


def alike(kinds: Mapping[Reported, Hashable]) -> list[tuple[list[Reported], str]]:
    """Split models into those that one chart can show, because their kinds are equal.

    Returns the models of each chart, and their labels for its title: " (a, b)", or empty if there is one chart.
    """
    charts: dict[Hashable, list[Reported]] = {}
    for model, kind in kinds.items():
        charts.setdefault(kind, []).append(model)
    return [
        (same, f" ({', '.join(model.label for model in same)})" if len(charts) > 1 else "") for same in charts.values()
    ]


def chart_figures(charts: Iterable[Chart]) -> list[Figure]:
    """Draw the charts in order. Equal charts give equal images. A chart without a finite point is left out."""
    drawable = [
        replace(chart, curves=[curve for curve in chart.curves if np.isfinite(curve.y).any()]) for chart in charts
    ]
    with _style():
        return [_figure(chart) for chart in drawable if chart.curves]


def _figure(chart: Chart) -> Figure:
    labels = ", ".join(dict.fromkeys(curve.model.label for curve in chart.curves))
    return Figure(
        title=chart.title,
        source=_address(_svg(chart)),
        alt=f"Chart: {chart.title}; {chart.y_label} over {chart.x_label}; {labels}",
        width=_WIDTH,
        height=_HEIGHT,
        caption=_values_below_scale(chart),
        numbers=chart.numbers,
    )


def _svg(chart: Chart) -> str:
    levels = _levels(chart.resolutions)
    height = _HEIGHT - _BOTTOM - _TOP - _ROW * max((level.row for level in levels), default=0)
    canvas = Canvas(figsize=(_WIDTH / 72, _HEIGHT / 72))
    axes = canvas.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, _AXES_WIDTH / _WIDTH, height / _HEIGHT))
    axes.set_xlabel(_printable(chart.x_label), parse_math=False)
    axes.set_ylabel(_printable(chart.y_label), parse_math=False)
    if levels:
        _mark_resolutions(axes, levels, len(chart.resolutions), height)
    else:
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: count_text(value))
    for curve in chart.curves:
        _draw_curve(axes, curve, _is_logarithmic(chart))
    _scale_y(axes, chart)
    if chart.legend:
        axes.legend(loc="best", fontsize=9, framealpha=0.6, facecolor="none", labelcolor=_INK)
    return _saved(canvas)


@cache
def swatch(index: int) -> str:
    """Address of a small image for a legend: colour, dash and marker of the model at that position."""
    with _style():
        canvas = Canvas(figsize=(40 / 72, 14 / 72))
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot([0, 1, 2], [0, 0, 0], markevery=[1], markersize=7, linewidth=1.8, **_look(index))
        axes.set_xlim(0, 2)
        return _address(_saved(canvas))


def _style() -> Any:
    return matplotlib.style.context(_STYLE, after_reset=True)  # not what a person's own matplotlibrc says


def _look(index: int) -> dict[str, Any]:
    return {"color": _COLOURS[index], "linestyle": _DASHES[index], "marker": _MARKERS[index]}


def _saved(canvas: Canvas) -> str:
    content = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that matplotlib's font lacks; the reader's has it
        canvas.savefig(content, format="svg", metadata=_METADATA)
    return " ".join(content.getvalue().split()).replace("> <", "><")


def _address(svg: str) -> str:
    return f"data:image/svg+xml,{quote(svg, safe=' /:=;,()')}"  # shorter than base64


def _printable(label: str) -> str:
    """Replace what XML cannot hold: control characters, half of a surrogate pair."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in label)


def count_text(value: float) -> str:
    """A count in few characters: 500, 20k, 1.7M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


class _Level(NamedTuple):
    """The latent groups of one resolution, and its name above them."""

    name: str
    first: int
    last: int
    row: int
    """Height of the name, counted from 0, so that no two names touch."""


def _levels(resolutions: Sequence[int]) -> list[_Level]:
    unit = _AXES_WIDTH / (len(resolutions) + 2 * _SIDE - 1)  # points a group
    levels: list[_Level] = []
    ends: list[float] = []  # of the last name in each row
    first = 0
    for resolution, members in groupby(resolutions):
        last = first + len(list(members)) - 1
        name = f"{resolution}×{resolution}"
        if (last - first + 1) * unit < 7.5 * len(name):
            name = f"{resolution}"
        middle, half = (first + last) / 2, (3.4 * len(name) + 2) / unit
        row = next((row for row, end in enumerate(ends) if middle - half > end), len(ends))
        ends[row : row + 1] = [middle + half]
        levels.append(_Level(name, first, last, row))
        first = last + 1
    return levels


def _mark_resolutions(axes: Axes, levels: Sequence[_Level], groups: int, height: float) -> None:
    """Name the resolutions above axes of that height, and stripe the groups of every other one."""
    axes.set_xlim(-_SIDE, groups - 1 + _SIDE)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.grid(False, axis="x")
    for number, level in enumerate(levels):
        if number % 2:
            axes.axvspan(level.first - 0.5, level.last + 0.5, color=_MUTED, alpha=0.08, linewidth=0, zorder=0)
        axes.text(
            (level.first + level.last) / 2, 1 + (4 + _ROW * level.row) / height, level.name, color=_MUTED,
            fontsize=10, ha="center", va="bottom", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _draw_curve(axes: Axes, curve: Curve, logarithmic: bool) -> None:
    """A value that a logarithmic scale cannot hold is a gap, with ▾ at the lower edge."""
    look = _look(curve.model.index)
    below = (curve.y <= 0) & logarithmic
    y = np.where(below, np.nan, curve.y)
    if curve.band is not None:
        axes.fill_between(curve.x, *curve.band, color=look["color"], alpha=0.16, linewidth=0)
    if curve.error is not None:  # one line with gaps: a tenth of the text of separate bars
        ends = np.stack([y - curve.error, y + curve.error, np.full_like(y, np.nan)], axis=1)
        axes.plot(np.repeat(curve.x, 3), ends.reshape(-1), color=look["color"], linewidth=1.1, alpha=0.75)
    crowded = len(curve.x) > _CROWDED
    axes.plot(
        curve.x,
        y,
        linewidth=1.0 if curve.marks == "points" or crowded else 1.5,
        alpha=0.75 if curve.marks == "line" else 1,
        markersize=2.6 if crowded else 4.2,
        label=_printable(curve.model.label),
        **(look | {"marker": ""} if curve.marks == "line" else look),
    )
    if below.any():
        axes.plot(
            curve.x[below], np.zeros(below.sum()), color=look["color"], linestyle="", marker="v", markersize=6,
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip


def _scale_y(axes: Axes, chart: Chart) -> None:
    values = _finite_values(chart)
    if _is_logarithmic(chart):
        positive = values[values > 0]
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / (1.5 if len(positive) == len(values) else 2.5), positive.max() * 1.5)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        return
    if chart.scale == "signed":
        _scale_signed(axes, values)
        return
    axes.locator_params(axis="y", nbins=6)
    if values.min() == 0:
        axes.set_ylim(bottom=0, top=None if values.any() else 1)


def _scale_signed(axes: Axes, values: Floats) -> None:
    """A line at 0, and a scale on which small and large values of both signs show."""
    axes.axhline(0, color=_MUTED, linewidth=1, zorder=1)
    sizes = np.abs(values[values != 0])
    if len(sizes) and sizes.min() * 10**_DECADES <= sizes.max():
        linear = max(float(sizes.min()), float(sizes.max()) / 10**_SIGNED_DECADES)
        axes.set_yscale("symlog", linthresh=linear)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear))
        nearest = _NEAREST_LABEL * linear
        axes.yaxis.set_major_formatter(lambda value, _: "" if 0 < abs(value) < nearest else f"{value:g}")
    else:
        axes.locator_params(axis="y", nbins=6)


def _is_logarithmic(chart: Chart) -> bool:
    values = _finite_values(chart)
    positive = values[values > 0]
    if chart.scale != "auto" or not len(positive):
        return False
    largest = float(positive.max())
    return float(positive.min()) * 10**_DECADES <= largest and float(values.min()) >= -_NEGLIGIBLE * largest


def _finite_values(chart: Chart) -> Floats:
    values = np.concatenate([curve.y for curve in chart.curves])
    return values[np.isfinite(values)]


def _values_below_scale(chart: Chart) -> str:
    """A sentence that names the values marked with ▾; empty if there are none."""
    found = [
        f"{curve.model.label} {value:.2g} at {count_text(x)}"
        for curve in chart.curves
        for x, value in zip(curve.x, curve.y, strict=True)
        if value <= 0
    ]
    if not found or not _is_logarithmic(chart):
        return ""
    more = [f"and {len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
    return f"▾ at the lower edge marks values of 0 or less ({', '.join([*found[:_MOST_NAMED], *more])})."
