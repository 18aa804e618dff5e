"""The report's charts: points lie where their values say, and labels and numbers from files cannot break a chart."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from reported_folders import PageReader, svg_of

from vdvae_lr.report.charts import Chart, Curve, chart_figures, count_text, swatch
from vdvae_lr.report.content import Figure
from vdvae_lr.report.reported import MOST_MODELS, Reported

FFHQ256 = [1, 1, *[4] * 4, *[8] * 5, *[16] * 10, *[32] * 22, *[64] * 14, *[128] * 8, 256]
MODELS = [Reported(label, Path(), index) for index, label in enumerate(("first", "<b>second</b>", "third", "fourth"))]
COLOURS = ("#0072b2", "#d55e00", "#00805d", "#b0508a")


def curve(values: list[float], index: int = 0, **more: Any) -> Curve:
    return Curve(MODELS[index], np.arange(len(values), dtype=np.float64), np.array(values), **more)


def chart(*curves: Curve, **more: Any) -> Chart:
    return Chart(**{"title": "rate", "x_label": "group", "y_label": "nats/dim", "curves": curves} | more)


def chart_svg(shown: Chart) -> str:
    (made,) = chart_figures([shown])
    return svg_of(made.source)


def figure(*curves: Curve, **more: Any) -> Figure:
    (made,) = chart_figures([chart(*curves, **more)])
    return made


def line_paths(svg: str, index: int = 0) -> list[dict[str, str | None]]:
    """The lines, not markers or areas, in a model's colour."""
    wanted = ("fill: none", f"stroke: {COLOURS[index]}")
    return [
        path
        for path in PageReader(svg).attributes("path")
        if path.get("d") and all(word in str(path["style"]) for word in wanted)
    ]


def drawn_lines(svg: str, index: int = 0) -> list[list[tuple[float, float]]]:
    """The points of each line in a model's colour."""
    found = [re.findall(r"[ML] (\S+) (\S+)", str(path["d"])) for path in line_paths(svg, index)]
    return [[(float(x), float(y)) for x, y in points] for points in found]


def tick_positions(svg: str) -> dict[str, float]:
    """The height of each number of the y axis."""
    found = re.findall(
        r'<text style="[^"]*font(?:-size)?: 11px[^"]*text-anchor: end[^>]* y="([\d.]+)"[^>]*>([^<]+)<', svg
    )
    return {text: float(y) for y, text in found}


def test_points_lie_where_the_axis_says() -> None:
    values = [1.0, 3.0, 2.0, 5.0]
    svg = chart_svg(chart(curve(values)))
    ticks = tick_positions(svg)
    assert len(ticks) >= 3
    numbers, heights = np.array([[float(text), y] for text, y in ticks.items()]).T
    slope, offset = np.polyfit(numbers, heights, 1)
    (line,) = drawn_lines(svg, 0)
    baseline = np.array(line)[:, 1] - slope * np.array(values)
    assert np.ptp(baseline) < 0.05 and slope < 0
    assert abs(baseline.mean() - offset) < 6  # a number's foot lies below its tick


@pytest.mark.parametrize(
    ("values", "logarithmic"), [([0.001, 0.1], True), ([0.0011, 0.1], False), ([-0.3, 100], False)]
)
def test_scale_is_logarithmic_over_two_decades(values: list[float], logarithmic: bool) -> None:
    svg = chart_svg(chart(curve([*values, 0.05])))
    (line,) = drawn_lines(svg, 0)
    (_, first), (_, second), (_, third) = line
    fraction = (third - first) / (second - first)
    low, high = values
    expected = np.log(0.05 / low) / np.log(high / low) if logarithmic else (0.05 - low) / (high - low)
    assert fraction == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("below", [0.0, -1e-6, -0.01])
def test_a_value_slightly_below_zero_keeps_the_scale(below: float) -> None:
    """One model's chart stays comparable with another's: the value is marked at the lower edge, and named."""
    (alone,) = drawn_lines(chart_svg(chart(curve([0.01, 0.1, 10.0]))))
    made = figure(curve([0.01, 0.1, 10.0, below]), curve([0.01, 0.1, 10.0], 1))
    (line,) = drawn_lines(svg_of(made.source))
    ratios = [(points[1][1] - points[0][1]) / (points[2][1] - points[0][1]) for points in (alone, line)]
    assert ratios == pytest.approx([1 / 3, 1 / 3], abs=0.01)  # 1 of 3 decades
    assert len(line) == 3  # it does not run down to the value
    assert made.caption == f"▾ at the lower edge marks values of 0 or less (first {below:.2g} at 3)."


def test_values_below_a_logarithmic_scale_are_marked_where_they_are() -> None:
    svg = chart_svg(chart(curve([0.0, 0.01, 10.0, -1e-6, 0.1])))
    marks = [each for each in PageReader(svg).attributes("use") if COLOURS[0] in str(each["style"])]
    (clip,) = PageReader(svg).attributes("rect")
    edge = float(str(clip["y"])) + float(str(clip["height"]))
    found = [float(str(each["x"])) for each in marks if float(str(each["y"])) == edge]
    shape = {str(each["xlink:href"]) for each in marks if float(str(each["y"])) == edge}
    points = [(float(str(each["x"]))) for each in marks if str(each["xlink:href"]) not in shape]
    assert len(points) == 3
    assert found == pytest.approx([2 * points[0] - points[1], 2 * points[1] - points[0]], abs=0.02)


def test_many_values_below_are_counted() -> None:
    assert "first 0 at 7, and 3 more)" in figure(curve([0.01, 10.0, *[0.0] * 9])).caption


def test_signed_values_stay_linear_and_unmarked() -> None:
    made = figure(curve([0.01, 10.0, -5.0]))
    (line,) = drawn_lines(svg_of(made.source))
    assert (line[2][1] - line[0][1]) / (line[0][1] - line[1][1]) == pytest.approx(5.01 / 9.99, abs=0.01)
    assert made.caption == ""


def test_values_that_are_none_leave_gaps() -> None:
    svg = chart_svg(chart(curve([1.0, 2.0, float("nan"), 4.0, 5.0])))
    path = str(line_paths(svg, 0)[0]["d"])
    assert path.count("M") == 2 and path.count("L") == 2


def test_error_bars_reach_one_standard_error() -> None:
    svg = chart_svg(chart(curve([1.0, 2.0, 3.0], error=np.array([0.5, np.nan, 0.25]))))
    bars, line = drawn_lines(svg, 0)
    unit = (line[0][1] - line[2][1]) / 2
    assert [y for _, y in bars] == pytest.approx(
        [line[0][1] + unit / 2, line[0][1] - unit / 2, line[2][1] + unit / 4, line[2][1] - unit / 4], abs=0.05
    )


def test_models_differ_in_colour_dash_and_marker() -> None:
    svg = chart_svg(chart(*(curve([1.0, 2.0 + index], index) for index in range(MOST_MODELS))))
    lines = [line_paths(svg, index) for index in range(MOST_MODELS)]
    assert [len(found) for found in lines] == [1] * MOST_MODELS
    dashes = {re.sub(r".*stroke-dasharray: ([^;]+);.*|.*", r"\1", str(found[0]["style"])) for found in lines}
    paths = [each for each in PageReader(svg).attributes("path") if each.get("id")]
    markers = {str(each["d"]) for each in paths if any(colour in str(each["style"]) for colour in COLOURS)}
    assert len(dashes) == len(markers) == MOST_MODELS


@pytest.mark.parametrize("index", range(MOST_MODELS))
def test_a_swatch_looks_like_the_curves(index: int) -> None:
    shown = svg_of(swatch(index))
    (line,) = line_paths(shown, index)
    (marker,) = [each for each in PageReader(shown).attributes("path") if each.get("id")]
    (in_chart,) = line_paths(chart_svg(chart(curve([1.0, 2.0], index))), index)
    assert ("stroke-dasharray" in str(line["style"])) == ("stroke-dasharray" in str(in_chart["style"])) == (index > 0)
    assert COLOURS[index] in str(marker["style"])


def test_a_chart_is_an_image_of_its_own() -> None:
    """It has neither the time nor the version of its making, and asks for nothing."""
    svg = chart_svg(chart(curve([1.0, 2.0]), resolutions=[1, 4]))
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox") == "0 0 374 260"
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not {"metadata", "script", "image", "foreignObject", "a"} & tags
    references = re.findall(r'(?:href="|url\()([^")]*)', svg)
    assert references and all(reference.startswith("#") for reference in references)


def test_a_chart_is_described_in_words() -> None:
    made = figure(curve([1.0, 2.0], 1))
    assert made.alt == "Chart: rate; nats/dim over group; <b>second</b>"
    assert "nats/dim" in PageReader(svg_of(made.source)).texts
    assert (made.title, made.width, made.height) == ("rate", 374, 260)


@pytest.mark.parametrize("label", ["$x^2$ & <b>", "面积, nats/dim", "100 $", "\"'#%&"])
def test_labels_are_taken_as_they_are(label: str) -> None:
    assert label in PageReader(svg_of(figure(curve([1.0, 2.0]), y_label=label).source)).texts


@pytest.mark.parametrize("letter", ["\ud800", "\x00", "\x1b", "\n"])
def test_letters_that_no_drawing_can_hold_are_replaced(letter: str) -> None:
    svg = chart_svg(chart(curve([1.0, 2.0]), y_label=f"a{letter}"))
    assert "a\N{REPLACEMENT CHARACTER}" in PageReader(svg).texts


def test_equal_charts_are_equal_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chart_svg(chart(curve([1.0, 2.0])))
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)  # somebody's own style
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    assert chart_svg(chart(curve([1.0, 2.0]))) == first
    assert matplotlib.rcParams["lines.linewidth"] == 7.0


def test_numbers_that_no_axis_holds_leave_gaps() -> None:
    wild = curve([1.0, -1e308, 1e308, 2.0], error=np.array([0.1, 0.1, 0.1, 1e308]), marks="points")
    bars, line = drawn_lines(svg_of(figure(wild).source))
    assert (len(bars), len(line)) == (2, 2)
    assert chart_figures([chart(curve([1e308, -1e308]))]) == []


def test_a_chart_without_points_is_left_out() -> None:
    assert chart_figures([chart(curve([]), curve([float("nan")], 1))]) == []
    assert figure(curve([]), curve([1.0], 1)).alt.endswith("; <b>second</b>")


@pytest.mark.parametrize("resolutions", [FFHQ256, [1, 4, 4, 8, 8, 16], [1, 4, 8, 16, 32, 64, 128, 256, 512, 1024]])
def test_names_of_resolutions_do_not_touch(resolutions: list[int]) -> None:
    svg = chart_svg(chart(curve([0.1] * len(resolutions)), resolutions=resolutions))
    labels = re.findall(r'<text style="[^"]*font(?:-size)?: 10px[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)<', svg)
    assert [int(text.partition("×")[0]) for _, _, text in labels] == list(dict.fromkeys(resolutions))
    for row in {y for _, y, _ in labels}:
        here = sorted((float(x), len(text)) for x, y, text in labels if y == row)
        assert all(right - left > 5.6 * (a + b) / 2 for (left, a), (right, b) in pairwise(here))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (500, "500"), (20_000, "20k"), (1_700_000, "1.7M"), (0.25, "0.25")]
)
def test_counts_are_short(value: float, text: str) -> None:
    assert count_text(value) == text


def test_small_and_large_differences_of_both_signs_show() -> None:
    values = [-1.0, -0.01, 0.0, 0.01, 1.0]
    (line,) = drawn_lines(chart_svg(chart(curve(values), scale="signed")))
    heights = [y for _, y in line]
    steps = [before - after for before, after in pairwise(heights)]
    assert all(step > 5 for step in steps)  # on a linear scale the middle ones would be 1 or less
    assert steps == pytest.approx(steps[::-1], abs=0.1)
    linear = drawn_lines(chart_svg(chart(curve([-1.0, 0.5, 1.0]), scale="signed")))[0]
    assert (linear[0][1] - linear[1][1]) / (linear[1][1] - linear[2][1]) == pytest.approx(3, rel=0.01)


def test_a_chart_can_name_its_curves() -> None:
    shown = chart(curve([1.0, 2.0]), curve([2.0, 1.0], 1), legend=True)
    assert {"first", "&lt;b&gt;second&lt;/b&gt;"} <= set(re.findall(r">([^<>]+)</text>", chart_svg(shown)))
    assert "first" not in chart_svg(chart(curve([1.0, 2.0])))


@pytest.mark.parametrize("values", [[0.0, 0.00125], [-0.00124, 0.00119], [-0.0104, 0.0101], [-99_876.0, 99_000.0]])
def test_the_unit_stays_inside_whatever_the_length_of_the_numbers(values: list[float]) -> None:
    svg = chart_svg(chart(curve(values), scale="linear"))
    (place,) = re.findall(r'<text [^>]*transform="rotate\(-90 ([\d.-]+) [\d.-]+\)"[^>]*>nats/dim<', svg)
    assert float(place) > 9  # the baseline; the letters reach 9 pixels to its left
