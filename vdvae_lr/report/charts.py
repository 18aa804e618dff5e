"""Charts of a report: curves of up to four models, drawn by matplotlib, as SVG for the inside of a page.

A model has its colour, its dash and its marker in every chart. Nothing of pyplot's global state is used.

Shapes: N points of a curve, L latent groups.
"""

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from vdvae_lr.report.html import Html, element
from vdvae_lr.report.svg import inline_svg

Floats = npt.NDArray[np.float64]
MOST_RUNS = 4
"""Models in a report: as many as there are colours, dashes and markers that can be told apart."""
_DASHES = ((), (6, 2.5), (6, 2, 1.5, 2), (1.8, 1.8))
_MARKERS = ("o", "s", "^", "D")
_INK, _MUTED, _GRID, _STRIPE = "#010203", "#010204", "#010205", "#010206"
_RUNS = tuple(f"#01030{run}" for run in range(MOST_RUNS))
_COLOURS = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _STRIPE: "var(--stripe)",
    **{drawn: f"var(--run-{run})" for run, drawn in enumerate(_RUNS)},
}
_WIDTH, _HEIGHT = 374, 260  # units: about pixels on a phone
_LEFT, _RIGHT, _BOTTOM, _TOP = 66, 10, 44, 18  # for numbers and labels; measuring those takes longer than drawing
_AXES_WIDTH = _WIDTH - _LEFT - _RIGHT
_LARGEST_DRAWN = 1e150
_NAME_ROW = 13  # units: of the names of resolutions
_SIDE = 0.7  # groups: between the first, or last, and the edge
_DECADES = 2  # positive values that span as many are drawn on a logarithmic scale
_HAIR = 1 / 500  # of the greatest value: how far below 0 a value may lie that is not taken for a signed one
_MOST_NAMED = 6  # values below a logarithmic scale
_STEPS = (1, 2, 2.5, 5, 10)  # of ticks, times powers of ten
_CROWDED = 24  # points, from which on markers are small
_LEGEND_MARKERS = (
    '<circle cx="20" cy="7" r="3.6"/>',
    '<rect x="16.6" y="3.6" width="6.8" height="6.8"/>',
    '<path d="M20 2.6L24.4 10.6H15.6Z"/>',
    '<path d="M20 2.4L24.6 7L20 11.6L15.4 7Z"/>',
)


@dataclass(frozen=True)
class Curve:
    """One model's points (N,); those that are not finite leave gaps."""

    run: int
    """Which model: 0 … `MOST_RUNS` − 1."""
    x: Floats
    y: Floats
    error: Floats | None = None
    """Standard errors, drawn as bars; not finite: none there."""
    band: tuple[Floats, Floats] | None = None
    """Lower and upper values, drawn as an area."""
    marks: Literal["line", "points", "both"] = "both"


@dataclass(frozen=True)
class Chart:
    """Curves over one quantity."""

    title: str
    """Above the chart, and for those who hear it."""
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    resolutions: Sequence[int] = ()
    """Of L latent groups, where x is the group: marked above."""
    scale: Literal["auto", "linear"] = "auto"
    """auto: logarithmic where positive values span two decades or more, and none lies far below 0."""


def draw_chart(chart: Chart, name: str, runs: Sequence[str]) -> Html:
    """The chart as an `<svg>` element, the same for the same input.

    Args:
        chart: with at least one finite point.
        name: of the chart on its page: letters and digits.
        runs: what the models are called, by number.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks; the reader's has it
        matplotlib.rcdefaults()  # not what a person's own matplotlibrc says
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11})
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
        figure.patch.set_visible(False)
        names = _names(chart.resolutions)
        height = _HEIGHT - _BOTTOM - _TOP - _NAME_ROW * max([0, *(name.row for name in names)])
        axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, _AXES_WIDTH / _WIDTH, height / _HEIGHT))
        _dress(axes, chart)
        if names:
            _mark_resolutions(axes, names, len(chart.resolutions), height)
        for curve in chart.curves:
            _draw_curve(axes, _above(curve) if _is_logarithmic(chart) else curve)
        _scale_y(axes, chart)
        _mark_below(axes, chart)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    shown = ", ".join(dict.fromkeys(runs[curve.run] for curve in chart.curves))
    label = f"Chart: {chart.title}; {chart.y_label} over {chart.x_label}; {shown}"
    return inline_svg(content.getvalue(), name, label, _COLOURS)


class Charts:
    """The charts of one page, each under a name that no other has.

    Args:
        runs: what the models are called, by number.
    """

    def __init__(self, runs: Sequence[str]) -> None:
        self.runs = tuple(runs)
        self._drawn = 0

    def figure(self, chart: Chart, *below: str) -> Html:
        """The chart under its title, with what belongs below it; nothing where it has no finite point."""
        curves = [curve for curve in map(_within_axes, chart.curves) if np.isfinite(curve.y).any()]
        if not curves:
            return Html()
        self._drawn += 1
        chart = replace(chart, curves=curves)
        drawn = draw_chart(chart, f"chart{self._drawn}", self.runs)
        return element("figure", element("h3", chart.title), drawn, self._below_scale(chart), *below)

    def _below_scale(self, chart: Chart) -> Html:
        """The values that a logarithmic scale cannot hold; nothing where there are none."""
        if not _is_logarithmic(chart):
            return Html()
        found = [
            f"{self.runs[curve.run]} {value:.2g} at {count_text(x)}"
            for curve in chart.curves
            for x, value in zip(curve.x, curve.y, strict=True)
            if value <= 0
        ]
        more = [f"and {len(found) - _MOST_NAMED} more"] if len(found) > _MOST_NAMED else []
        words = ", ".join([*found[:_MOST_NAMED], *more])
        return element("p", f"▾ at the lower edge: 0 or less ({words}).", class_="muted") if found else Html()


def _within_axes(curve: Curve) -> Curve:
    """Without numbers whose differences are beyond a float, which no axis can hold: damage, or a run that blew up."""

    def held(values: Floats) -> Floats:
        return np.where(np.abs(values) < _LARGEST_DRAWN, values, np.nan)

    return replace(
        curve,
        y=held(curve.y),
        error=None if curve.error is None else held(curve.error),
        band=None if curve.band is None else (held(curve.band[0]), held(curve.band[1])),
    )


def legend(runs: Sequence[str], shown: Iterable[int]) -> Html:
    """The names of the models shown, by number, beside their lines and markers."""
    return element("ul", *(element("li", _swatch(run), runs[run]) for run in shown), class_="legend")


def _swatch(run: int) -> Html:
    dashes = " ".join(f"{length:g}" for length in _DASHES[run])
    colour = f"var(--run-{run})"
    return Html(
        f'<svg viewBox="0 0 40 14" aria-hidden="true" style="stroke: {colour}; fill: {colour}">'
        f'<path d="M0 7H40" style="stroke-width: 2; stroke-dasharray: {dashes or "none"}"/>{_LEGEND_MARKERS[run]}</svg>'
    )


def _dress(axes: Axes, chart: Chart) -> None:
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(True, color=_GRID, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, which="both", labelcolor=_INK)
    axes.set_xlabel(_drawable(chart.x_label), color=_INK, parse_math=False)
    axes.set_ylabel(_drawable(chart.y_label), color=_INK, parse_math=False)
    if chart.resolutions:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))


def _drawable(label: str) -> str:
    """Without what XML cannot hold: half of a surrogate pair, control characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in label)


def count_text(value: float) -> str:
    """A number of things, short: 500, 20k, 1.7M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Name:
    """A resolution's, above its groups; names that would touch stand in several rows, from 0 up."""

    text: str
    first: int
    last: int
    row: int


def _names(resolutions: Sequence[int]) -> list[_Name]:
    unit = _AXES_WIDTH / (len(resolutions) + 2 * _SIDE - 1)  # of a group
    names: list[_Name] = []
    occupied: list[float] = []
    start = 0
    for level, members in groupby(resolutions):
        count = len(list(members))
        text = f"{level}×{level}" if count * unit > 7.5 * len(f"{level}×{level}") else f"{level}"
        middle, half = start + (count - 1) / 2, (3.4 * len(text) + 2) / unit
        row = next((row for row, right in enumerate(occupied) if middle - half > right), len(occupied))
        occupied[row : row + 1] = [middle + half]
        names.append(_Name(text, start, start + count - 1, row))
        start += count
    return names


def _mark_resolutions(axes: Axes, names: Sequence[_Name], groups: int, height: float) -> None:
    """Names, and stripes behind the groups of every other resolution, on axes so many units high."""
    axes.set_xlim(-_SIDE, groups - 1 + _SIDE)
    axes.grid(False, axis="x")
    for number, name in enumerate(names):
        if number % 2:
            axes.axvspan(name.first - 0.5, name.last + 0.5, color=_STRIPE, linewidth=0, zorder=0)
        axes.text(
            (name.first + name.last) / 2, 1 + (4 + _NAME_ROW * name.row) / height, name.text, color=_MUTED,
            fontsize=10, ha="center", va="bottom", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _draw_curve(axes: Axes, curve: Curve) -> None:
    colour = _RUNS[curve.run]
    if curve.band is not None:
        axes.fill_between(curve.x, *curve.band, color=colour, alpha=0.16, linewidth=0)
    if curve.error is not None:
        axes.plot(*_bars(curve), color=colour, linewidth=1.1, alpha=0.75)
    crowded = len(curve.x) > _CROWDED
    axes.plot(
        curve.x,
        curve.y,
        color=colour,
        linewidth=1.0 if curve.marks == "points" or crowded else 1.5,
        alpha=0.75 if curve.marks == "line" else 1,
        dashes=_DASHES[curve.run] or (None, None),
        marker="" if curve.marks == "line" else _MARKERS[curve.run],
        markersize=2.6 if crowded else 4.2,
    )


def _bars(curve: Curve) -> tuple[Floats, Floats]:
    """Error bars as one line with gaps: a tenth of the text that a mark for each would take."""
    assert curve.error is not None
    gap = np.full_like(curve.y, np.nan)
    ends = np.stack([curve.y - curve.error, curve.y + curve.error, gap], axis=1)
    return np.repeat(curve.x, 3), ends.reshape(-1)


def _is_logarithmic(chart: Chart) -> bool:
    values = _finite(curve.y for curve in chart.curves)
    positive = values[values > 0]
    if chart.scale != "auto" or not len(positive):
        return False
    least, greatest = float(positive.min()), float(positive.max())
    return least * 10**_DECADES <= greatest and float(values.min()) >= -_HAIR * greatest


def _above(curve: Curve) -> Curve:
    """The same with gaps for what a logarithmic scale cannot hold."""
    return replace(curve, y=np.where(curve.y > 0, curve.y, np.nan))


def _mark_below(axes: Axes, chart: Chart) -> None:
    """▾ on the lower edge for each value that a logarithmic scale cannot hold, apart from its curve's line."""
    if not _is_logarithmic(chart):
        return
    for curve in chart.curves:
        x = curve.x[curve.y <= 0]
        if not len(x):
            continue
        axes.plot(
            x, np.zeros_like(x), color=_RUNS[curve.run], linestyle="", marker="v", markersize=6,
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip


def _scale_y(axes: Axes, chart: Chart) -> None:
    values = _finite(curve.y for curve in chart.curves)
    if _is_logarithmic(chart):
        positive = values[values > 0]
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / (1.5 if len(positive) == len(values) else 2.5), values.max() * 1.5)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    formatter = ScalarFormatter(useOffset=False, useMathText=False)
    formatter.set_powerlimits((-4, 5))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    if len(values) and values.min() == 0:
        axes.set_ylim(bottom=0, top=None if values.any() else 1)
    axes.yaxis.get_offset_text().set_color(_INK)


def _finite(series: Iterable[Floats]) -> Floats:
    values = np.concatenate(list(series))
    return values[np.isfinite(values)]


def thinned(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats, int]:
    """Means over runs of neighbouring points, of `most` at the most; and how many points each is of."""
    every = math.ceil(len(x) / most) if len(x) else 1
    if every == 1:
        return x, y, 1
    starts = np.arange(0, len(x), every)
    known = np.isfinite(y)
    counts = np.add.reduceat(known.astype(np.float64), starts)
    sums = np.add.reduceat(np.where(known, y, 0.0), starts)
    lengths = np.diff(np.append(starts, len(x)))
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(x, starts) / lengths, means, every
