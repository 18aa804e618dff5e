"""`vdvae-lr app` in a real browser: views are drawn and follow their controls, by keyboard too; nothing is fetched."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import Page, open_browser, wanted_browser
from launching import CHECKOUT
from PIL import Image
from saved_models import save_tiny, shake
from started_processes import Start

PHONE, DESK = 390, 1280
SHOWN = "[...document.querySelectorAll('img')].filter(each => each.offsetParent && each.naturalWidth > 100)"
PICTURE = f"({SHOWN}.find(each => each.alt.startsWith({{!r}}))?.src)"
NOISE = PICTURE.format("Images under noise")
TAB = "[...document.querySelectorAll('[role=tab]')].find(each => each.textContent.trim() == {!r} && each.offsetParent)"
HEARS_CTRL_C = """
import signal, sys
from vdvae_lr.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background begins with it ignored
sys.exit(main(sys.argv[1:]))
"""
SLIDER = "document.activeElement.type == 'range' && document.activeElement.ariaLabel"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    pytest.importorskip("gradio")
    with open_browser(wanted_browser()) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of two small models, served by the command; afterwards Ctrl-C ends it well."""
    folder = tmp_path_factory.mktemp("app")
    models = [f"{name}={save_tiny(folder / name, shake, seed=seed)}" for seed, name in enumerate(("before", "after"))]
    command = [sys.executable, "-c", HEARS_CTRL_C, "app", *models]
    environment = Start(command, {"PYTHONPATH": str(CHECKOUT)}).environment()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        found = None
        while found is None:
            line = process.stdout.readline()
            assert line, "it ended before it was open"
            found = re.search(r"Open (http://127\.0\.0\.1:\d+/) in a browser", line)
        yield found[1]
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def open_page(page: Page, address: str, width: int = DESK) -> str:
    """The first picture's address."""
    page.open(address, width=width, dark=False)
    return str(page.wait_for(NOISE))


def open_tab(page: Page, name: str) -> None:
    page.value(f"{TAB.format(name)}.click()")


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_fits_and_asks_nobody_else(page: Page, address: str, width: int) -> None:
    open_page(page, address, width)
    assert page.value("document.documentElement.scrollWidth") <= width
    asked = {request["request"]["url"] for request in page.named("Network.requestWillBeSent")}
    assert {url for url in asked if url.startswith("http") and not url.startswith(address)} == set()
    assert page.named("Log.entryAdded") == []


@pytest.mark.slow
def test_every_tab_has_its_pictures(page: Page, address: str) -> None:
    open_page(page, address)
    views = {
        "First groups": ["Images, and below"],
        "Samples": ["Samples from"],
        "Two images": ["The images, numbered", "Images A and B", "The way from"],
    }
    for tab, pictures in views.items():
        open_tab(page, tab)
        for words in pictures:
            assert page.wait_for(PICTURE.format(words))


@pytest.mark.slow
def test_the_keyboard_moves_a_slider_and_the_picture_follows(page: Page, address: str) -> None:
    before = open_page(page, address)
    for _ in range(40):
        page.press("Tab", 9)
        if "variance of the noise" in (page.value(SLIDER) or ""):
            break
    else:
        pytest.fail("the slider cannot be reached with the keyboard")
    page.press("ArrowRight", 39)
    assert page.wait_for(f"{NOISE} != {before!r} && {NOISE}")


@pytest.mark.slow
def test_one_slider_sets_the_temperature_of_all_groups(page: Page, address: str) -> None:
    open_page(page, address)
    open_tab(page, "Samples")
    picture = PICTURE.format("Samples from")
    before = page.wait_for(picture)
    sliders = "[...document.querySelectorAll('input[type=range]')].filter(each => each.offsetParent)"
    page.value(f"{sliders}[0].focus()")
    page.press("Home", 36)
    page.wait_for(f"{sliders}.every(each => each.value == 0)")
    assert page.wait_for(f"{picture} != {before!r} && {picture}")


@pytest.mark.slow
def test_an_image_of_ones_own_is_shown_and_what_was_done_to_it_is_said(
    page: Page, address: str, tmp_path: Path
) -> None:
    before = open_page(page, address)
    open_tab(page, "Two images")
    page.wait_for(PICTURE.format("The way from"))
    page.value("[...document.querySelectorAll('input[type=radio]')].find(each => each.value == '-1').click()")
    page.wait_for("document.body.innerText.includes('you have not added an image')")
    open_tab(page, "Noise")
    page.value("[...document.querySelectorAll('button')].find(each => each.textContent.includes('Add an')).click()")
    Image.new("RGB", (70, 50), (200, 30, 30)).save(tmp_path / "red.png")
    page.wait_for("document.querySelectorAll('input[type=file]').length")
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "red.png")])
    page.wait_for("document.body.innerText.includes('It was cut from 70x50 to its central square')")
    assert page.wait_for(f"{NOISE} != {before!r} && {NOISE}")
