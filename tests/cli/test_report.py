"""`vdvae-lr report`: where the page goes, what it replaces, and how mistakes end."""

import io
import os
import sys
from pathlib import Path

import pytest
from reported_folders import evaluated_folder, run_folder

from vdvae_lr.cli.main import main
from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.report.page import FIRST_LINE


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_run_keeps_its_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(here / "a", evaluated=False)
    assert main(["report", "a"]) == 0
    page = (here / "a" / "report.html").read_text(encoding="utf-8")
    assert page.startswith(FIRST_LINE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote a/report.html ({len(page.encode()) / 1e6:.1f} MB)"
    assert lines[1].startswith("a: It has not been evaluated. Run `vdvae-lr evaluate a`")


def test_several_runs_are_reported_here(here: Path) -> None:
    run_folder(here / "a"), evaluated_folder(here / "e", "weights")
    assert main(["report", "before=e", "a"]) == 0
    assert "Report: before, a" in (here / "report.html").read_text(encoding="utf-8")
    assert not (here / "a" / "report.html").exists()


def test_a_file_can_be_named_and_a_report_replaced(here: Path) -> None:
    run_folder(here / "a")
    assert main(["report", "a", "--out", "new/page.html"]) == 0
    first = (here / "new" / "page.html").read_bytes()
    assert main(["report", "other=a", "--out", "new/page.html"]) == 0
    assert (here / "new" / "page.html").read_bytes() != first


def test_settings_are_compared_with_their_preset(here: Path) -> None:
    run_folder(here / "a", hps="fashion", iters=450, save_dir="somewhere", num_workers=7)
    assert main(["report", "a"]) == 0
    page = (here / "a" / "report.html").read_text(encoding="utf-8")
    chosen = page[page.index("Settings that differ") : page.index('<section id="hierarchy">')]
    assert "<code>alpha_T</code>" in chosen and "<strong>0.5</strong>" in chosen
    assert "<code>iters</code>" not in chosen  # as the preset has it
    assert "<code>num_workers</code>" not in chosen  # changes nothing that is computed


@pytest.mark.parametrize("hps", ["\ud800", "a\0b", "x" * 300])
def test_names_that_are_no_text_are_reported(here: Path, capsys: pytest.CaptureFixture[str], hps: str) -> None:
    folder = os.fsdecode(b"caf\xe9")
    run_folder(here / folder, evaluated=False, hps=hps, desc="\ud800")
    evaluated_folder(here / "e", "w\udce9", settings={"\ud800": "\ud800"})
    assert main(["report", folder, "e", "--out", f"{folder}/page.html"]) == 0
    page = (here / folder / "page.html").read_text(encoding="utf-8")
    assert "Report: caf?, w?" in page
    out = capsys.readouterr().out
    assert "wrote caf\\udce9/page.html" in out and "caf\\udce9: It has not been evaluated" in out


def test_a_console_without_the_letters_is_no_failure(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(here / "a", evaluated=False)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert main(["report", "κ=a"]) == 0
    assert b"\\u03ba: It has not been evaluated" in written.getvalue()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report"], "there is no run to report on"),
        (["report", "missing"], "there is no folder missing"),
        (["report", "a", "--out", "a"], "a is a folder; name a file with --out, such as a/report.html."),
        (["report", "a", "--out", "a/settings.json"], "a/settings.json exists and is not a report"),
        (["report", "a", "--out", "a/settings.json/x.html"], "cannot be written"),
        (["report", "a", "a", "a", "a", "a"], "5 runs are too many"),
    ],
)
def test_mistakes_are_one_line_and_lose_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    run_folder(here / "a")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert main(words) == EXIT_INPUT_ERROR
    captured = capsys.readouterr()
    assert sentence in captured.err and len(captured.err.splitlines()) == 1 and not captured.out
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
