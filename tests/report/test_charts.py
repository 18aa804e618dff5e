"""The report's charts: the points lie where their values say, and several of them can live in one page."""

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from reported_folders import PageReader

from vdvae_lr.report.charts import MOST_RUNS, Chart, Charts, Curve, count_text, draw_chart, legend, thinned

FFHQ256 = [1, 1, *[4] * 4, *[8] * 5, *[16] * 10, *[32] * 22, *[64] * 14, *[128] * 8, 256]
RUNS = ("first", "<b>second</b>", "third", "fourth")


def curve(values: list[float], run: int = 0, **more: Any) -> Curve:
    return Curve(run, np.arange(len(values), dtype=np.float64), np.array(values), **more)


def chart(*curves: Curve, **more: Any) -> Chart:
    return Chart(**{"title": "rate", "x_label": "group", "y_label": "nats/dim", "curves": curves} | more)


def line_paths(svg: str, run: int) -> list[dict[str, str | None]]:
    """The lines, no marks and no areas, in a run's colour."""
    wanted = ("fill: none", f"stroke: var(--run-{run})")
    return [path for path in PageReader(svg).attributes("path") if all(word in str(path["style"]) for word in wanted)]


def drawn_lines(svg: str, run: int) -> list[list[tuple[float, float]]]:
    """Points of each line in a run's colour."""
    found = [re.findall(r"[ML] (\S+) (\S+)", str(path["d"])) for path in line_paths(svg, run)]
    return [[(float(x), float(y)) for x, y in points] for points in found]


def tick_positions(svg: str) -> dict[str, float]:
    """Heights of the y axis's numbers."""
    found = re.findall(r'<text style="[^"]*font-size: 11px; text-anchor: end[^>]* y="([\d.]+)"[^>]*>([^<]+)<', svg)
    return {text: float(y) for y, text in found}


def test_points_lie_where_the_axis_says() -> None:
    values = [1.0, 3.0, 2.0, 5.0]
    svg = draw_chart(chart(curve(values)), "chart1", RUNS)
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
    svg = draw_chart(chart(curve([*values, 0.05])), "chart1", RUNS)
    (line,) = drawn_lines(svg, 0)
    (_, first), (_, second), (_, third) = line
    fraction = (third - first) / (second - first)
    low, high = values
    expected = np.log(0.05 / low) / np.log(high / low) if logarithmic else (0.05 - low) / (high - low)
    assert fraction == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("below", [0.0, -1e-6, -0.01])
def test_a_hair_below_zero_keeps_the_scale(below: float) -> None:
    """One run's chart stays comparable with the other's: the value is marked at the lower edge, and named."""
    (alone,) = drawn_lines(draw_chart(chart(curve([0.01, 0.1, 10.0])), "chart1", RUNS), 0)
    made = Charts(RUNS).figure(chart(curve([0.01, 0.1, 10.0, below]), curve([0.01, 0.1, 10.0], 1)))
    (line,) = drawn_lines(made, 0)
    ratios = [(points[1][1] - points[0][1]) / (points[2][1] - points[0][1]) for points in (alone, line)]
    assert ratios == pytest.approx([1 / 3, 1 / 3], abs=0.01)  # 1 of 3 decades
    assert len(line) == 3  # it does not run down to the value
    assert PageReader(made).text.endswith(f"▾ at the lower edge: 0 or less (first {below:.2g} at 3).")


def test_values_below_a_logarithmic_scale_are_marked_where_they_are() -> None:
    svg = draw_chart(chart(curve([0.0, 0.01, 10.0, -1e-6, 0.1])), "chart1", RUNS)
    marks = [each for each in PageReader(svg).attributes("use") if "--run-0" in str(each["style"])]
    (clip,) = PageReader(svg).attributes("rect")
    edge = float(str(clip["y"])) + float(str(clip["height"]))
    found = [float(str(each["x"])) for each in marks if float(str(each["y"])) == edge]
    shape = {str(each["href"]) for each in marks if float(str(each["y"])) == edge}
    points = [(float(str(each["x"]))) for each in marks if str(each["href"]) not in shape]
    assert len(points) == 3
    assert found == pytest.approx([2 * points[0] - points[1], 2 * points[1] - points[0]], abs=0.02)


def test_many_values_below_are_counted() -> None:
    made = Charts(RUNS).figure(chart(curve([0.01, 10.0, *[0.0] * 9])))
    assert "first 0 at 7, and 3 more)" in PageReader(made).text


def test_signed_values_stay_linear_and_unmarked() -> None:
    made = Charts(RUNS).figure(chart(curve([0.01, 10.0, -5.0])))
    (line,) = drawn_lines(made, 0)
    assert (line[2][1] - line[0][1]) / (line[0][1] - line[1][1]) == pytest.approx(5.01 / 9.99, abs=0.01)
    assert "lower edge" not in made


def test_values_that_are_none_leave_gaps() -> None:
    svg = draw_chart(chart(curve([1.0, 2.0, float("nan"), 4.0, 5.0])), "chart1", RUNS)
    path = str(line_paths(svg, 0)[0]["d"])
    assert path.count("M") == 2 and path.count("L") == 2


def test_error_bars_reach_one_standard_error() -> None:
    svg = draw_chart(chart(curve([1.0, 2.0, 3.0], error=np.array([0.5, np.nan, 0.25]))), "chart1", RUNS)
    bars, line = drawn_lines(svg, 0)
    unit = (line[0][1] - line[2][1]) / 2
    assert [y for _, y in bars] == pytest.approx(
        [line[0][1] + unit / 2, line[0][1] - unit / 2, line[2][1] + unit / 4, line[2][1] - unit / 4], abs=0.05
    )


def test_runs_differ_in_colour_dash_and_marker() -> None:
    svg = draw_chart(chart(*(curve([1.0, 2.0 + run], run) for run in range(MOST_RUNS))), "chart1", RUNS)
    lines = [line_paths(svg, run) for run in range(MOST_RUNS)]
    assert [len(found) for found in lines] == [1] * MOST_RUNS
    dashes = {re.sub(r".*stroke-dasharray: ([^;]+);.*|.*", r"\1", str(found[0]["style"])) for found in lines}
    paths = [each for each in PageReader(svg).attributes("path") if each.get("id") and "--run-" in str(each["style"])]
    markers = {str(each["d"]) for each in paths}
    assert len(dashes) == len(markers) == MOST_RUNS
    assert len(PageReader(legend(RUNS, range(MOST_RUNS))).attributes("svg")) == MOST_RUNS


def test_charts_of_one_page_share_no_identifier_and_style_nothing_else() -> None:
    charts = Charts(RUNS)
    page = "".join(charts.figure(chart(curve([1.0, 2.0]), resolutions=[1, 4])) for _ in range(3))
    read = PageReader(page)
    identifiers = [each["id"] for _, each in read.elements if "id" in each]
    assert len(identifiers) == len(set(identifiers)) > 0
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert {name for pair in used for name in pair if name} == set(identifiers)
    assert read.attributes("style") == read.attributes("metadata") == []
    assert not re.search(r"#0[01]0", page) and "DejaVu" not in page and "xlink" not in page


def test_chart_says_what_it_is() -> None:
    svg = draw_chart(chart(curve([1.0, 2.0], 1)), "chart1", RUNS)
    (attributes,) = PageReader(svg).attributes("svg")
    assert attributes["role"] == "img"
    assert attributes["aria-label"] == "Chart: rate; nats/dim over group; <b>second</b>"
    assert "nats/dim" in PageReader(svg).texts


@pytest.mark.parametrize("label", ["$x^2$ & <b>", "面积, nats/dim", "100 $"])
def test_labels_are_taken_as_they_are(label: str) -> None:
    assert label in PageReader(draw_chart(chart(curve([1.0, 2.0]), y_label=label), "chart1", RUNS)).texts


@pytest.mark.parametrize("letter", ["\ud800", "\x00", "\x1b"])
def test_letters_that_no_drawing_can_hold_are_replaced(letter: str) -> None:
    assert (
        "a\N{REPLACEMENT CHARACTER}"
        in PageReader(draw_chart(chart(curve([1.0, 2.0]), y_label=f"a{letter}"), "chart1", RUNS)).texts
    )


def test_equal_charts_are_equal_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    first = draw_chart(chart(curve([1.0, 2.0])), "chart1", RUNS)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)  # somebody's own style
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")
    assert draw_chart(chart(curve([1.0, 2.0])), "chart1", RUNS) == first
    assert matplotlib.rcParams["lines.linewidth"] == 7.0


def test_numbers_that_no_axis_holds_leave_gaps() -> None:
    wild = curve([1.0, -1e308, 1e308, 2.0], error=np.array([0.1, 0.1, 0.1, 1e308]), marks="points")
    figure = str(Charts(RUNS).figure(chart(wild)))
    assert figure.count("<svg") == 1
    assert str(Charts(RUNS).figure(chart(curve([1e308, -1e308])))) == ""


def test_a_chart_without_points_is_left_out() -> None:
    charts = Charts(RUNS)
    assert charts.figure(chart(curve([]), curve([float("nan")], 1))) == ""
    shown = charts.figure(chart(curve([]), curve([1.0], 1)))
    assert "first" not in shown


@pytest.mark.parametrize("resolutions", [FFHQ256, [1, 4, 4, 8, 8, 16], [1, 4, 8, 16, 32, 64, 128, 256, 512, 1024]])
def test_names_of_resolutions_do_not_touch(resolutions: list[int]) -> None:
    svg = draw_chart(chart(curve([0.1] * len(resolutions)), resolutions=resolutions), "chart1", RUNS)
    labels = re.findall(r'<text style="[^"]*font-size: 10px[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)<', svg)
    assert [int(text.partition("×")[0]) for _, _, text in labels] == list(dict.fromkeys(resolutions))
    for row in {y for _, y, _ in labels}:
        here = sorted((float(x), len(text)) for x, y, text in labels if y == row)
        assert all(right - left > 5.6 * (a + b) / 2 for (left, a), (right, b) in pairwise(here))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (500, "500"), (20_000, "20k"), (1_700_000, "1.7M"), (0.25, "0.25")]
)
def test_counts_are_short(value: float, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize("count", [1, 7, 10, 11, 23])
def test_thinned_points_are_means_of_neighbours(count: int) -> None:
    generator = np.random.default_rng(count)
    x, y = np.arange(count, dtype=np.float64), generator.normal(size=count)
    y[::4] = np.nan
    fewer_x, fewer_y, every = thinned(x, y, 10)
    assert every == -(-count // 10) and len(fewer_x) <= 10
    for number, start in enumerate(range(0, count, every)):
        known = [value for value in y[start : start + every] if not np.isnan(value)]
        assert fewer_x[number] == pytest.approx(np.mean(x[start : start + every]))
        assert fewer_y[number] == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


def test_nothing_is_thinned_to_nothing() -> None:
    empty = np.zeros(0)
    assert [len(part) for part in thinned(empty, empty, 10)[:2]] == [0, 0]
