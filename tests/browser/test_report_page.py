"""A report in a real browser: everything is drawn, nothing is fetched or complained of, and it fits any screen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devtools import Page, open_browser, wanted_browser
from PIL import Image
from reported_folders import evaluated_folder, run_folder
from short_runs import short_run

from vdvae_lr.report.page import report_page
from vdvae_lr.report.reported import read_reported

PHONE, DESK = 390, 1280
OPEN_ALL = "document.querySelectorAll('details').forEach(part => part.open = true)"
BOXES = """[...document.querySelectorAll(%r)].map(part => {
    const box = part.getBoundingClientRect();
    return {width: box.width, height: box.height, left: box.left, right: box.right,
            top: box.top + scrollY, bottom: box.bottom + scrollY};
})"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser(wanted_browser()) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, a run of a long and hostile name, and an evaluation alone, side by side."""
    folder = tmp_path_factory.mktemp("report")
    long = "<script>window.stop()</script>" + "-a-very-long-name" * 4
    words = [short_run(folder), f"{long}={run_folder(folder / 'b')}", evaluated_folder(folder / "e", "weights")]
    path = folder / "report.html"
    path.write_text(report_page(read_reported([str(word) for word in words])), encoding="utf-8")
    return path


@pytest.fixture(params=[(width, dark) for width in (PHONE, DESK) for dark in (False, True)], ids=str)
def view(request: pytest.FixtureRequest, page: Page, report: Path) -> tuple[Page, int, bool]:
    """The page opened on a screen of a width, by day or by night, with every part unfolded."""
    width, dark = request.param
    page.open(report, width=width, dark=dark)
    page.value(OPEN_ALL)
    return page, width, dark


def boxes(page: Page, selector: str) -> list[dict[str, Any]]:
    return list(page.value(BOXES % selector))


def test_charts_and_pictures_are_drawn(view: tuple[Page, int, bool]) -> None:
    page, _, _ = view
    charts, pictures = boxes(page, "figure img.chart"), boxes(page, "img.picture")
    assert len(charts) > 12 and len(pictures) == 8  # 2 + 2 while training, 2 × 2 of evaluations
    assert all(box["width"] > 250 and box["height"] > 100 for box in charts)
    assert all(box["width"] > 20 and box["height"] > 10 for box in pictures)
    assert all((box["width"], box["height"]) == (40, 14) for box in boxes(page, ".legend img"))
    assert page.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_nothing_sticks_out(view: tuple[Page, int, bool]) -> None:
    page, width, _ = view
    assert page.value("document.documentElement.scrollWidth") <= width
    for selector in ("img", ".scroll", "figure", "h1"):
        assert all(box["left"] >= 0 and box["right"] <= width + 0.5 for box in boxes(page, selector)), selector


def test_nothing_is_fetched_run_or_complained_of(view: tuple[Page, int, bool], report: Path) -> None:
    page, _, _ = view
    addresses = [event["request"]["url"] for event in page.named("Network.requestWillBeSent")]
    assert [address for address in addresses if not address.startswith("data:")] == [report.as_uri()]
    for method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.loadingFailed"):
        assert page.named(method) == []
    assert str(page.value("document.title")).startswith("Report: run, <script>")


def test_text_can_be_read_by_day_and_by_night(view: tuple[Page, int, bool], tmp_path: Path) -> None:
    page, _, dark = view
    paper = brightness(page.value("getComputedStyle(document.body).backgroundColor"))
    ink = brightness(page.value("getComputedStyle(document.body).color"))
    assert (paper < 0.2) == dark and abs(paper - ink) > 0.6
    page.save_picture(tmp_path / "page.png")
    (chart, *_), (swatch, *_) = boxes(page, "figure img.chart"), boxes(page, "#training .legend img")
    with Image.open(tmp_path / "page.png") as picture:
        ends = brightest_and_darkest(cut_out(picture, chart))
        assert ends[dark] == pytest.approx(paper, abs=0.1)  # the chart's ground
        assert np.ptp(ends) > 0.5  # and its ink
        assert is_blue(cut_out(picture, swatch))  # the first model, by day and by night


def cut_out(picture: Image.Image, box: dict[str, float]) -> Image.Image:
    left, top, right, bottom = (round(box[side]) for side in ("left", "top", "right", "bottom"))
    return picture.convert("RGB").crop((left, top, right, bottom))


def brightest_and_darkest(picture: Image.Image) -> tuple[float, float]:
    low, high = picture.convert("L").getextrema()
    return float(high) / 255, float(low) / 255


def is_blue(picture: Image.Image) -> bool:
    """Whether the most colourful pixel is."""
    pixels = np.asarray(picture).reshape(-1, 3).astype(int)
    red, green, blue = pixels[np.ptp(pixels, axis=1).argmax()]
    return bool(blue > green > red)


def brightness(colour: str) -> float:
    """Of `rgb(r, g, b)`: 0 for black, 1 for white."""
    numbers = [float(number) for number in colour.strip("rgba()").split(",")[:3]]
    return sum(numbers) / (3 * 255)


def test_labels_of_charts_can_be_read_and_do_not_leave_them(view: tuple[Page, int, bool]) -> None:
    page, _, _ = view
    texts = page.value("""[...document.querySelectorAll('figure img.chart')].flatMap(image => {
        const chart = image.parentNode.insertBefore(document.createElement('div'), image);
        chart.innerHTML = decodeURIComponent(image.src.slice(image.src.indexOf(',') + 1));
        const drawing = chart.querySelector('svg');
        [drawing.style.width, drawing.style.height] = [`${image.width}px`, `${image.height}px`];
        const frame = drawing.getBoundingClientRect();
        const found = [...drawing.querySelectorAll('text')].map(text => {
            const box = text.getBoundingClientRect(), matrix = text.getScreenCTM();
            return {text: text.textContent,
                    inside: box.left > frame.left - 2 && box.right < frame.right + 2
                        && box.top > frame.top - 2 && box.bottom < frame.bottom + 2,
                    size: parseFloat(getComputedStyle(text).fontSize) * Math.hypot(matrix.a, matrix.b)};
        });
        chart.remove();
        return found;
    })""")
    assert len(texts) > 100
    assert [text["text"] for text in texts if not text["inside"]] == []
    assert min(text["size"] for text in texts) > 8  # pixels


def test_policy_stops_a_script_and_a_request(page: Page, report: Path, tmp_path: Path) -> None:
    """The tests above can fail: this browser does report what a page tries."""
    tampered = tmp_path / "tampered.html"
    content = report.read_text(encoding="utf-8")
    extra = "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x.png'></main>"
    tampered.write_text(content.replace("</main>", extra), encoding="utf-8")
    page.open(tampered, width=DESK, dark=False)
    assert page.value("document.title") != "taken"
    complaints = [event["entry"]["text"] for event in page.named("Log.entryAdded")]
    assert sum("Content Security Policy" in text for text in complaints) == 2
