"""The report as a whole: what it says of runs side by side, and what it leaves out where nobody measured."""

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from reported_folders import (
    PageReader,
    evaluated_folder,
    evaluation,
    page_of,
    quantity,
    row,
    run_folder,
    svg_of,
    write_picture,
)

from vdvae_lr.evaluation.document import write_evaluation
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.report.page import FIRST_LINE, report_page
from vdvae_lr.report.reported import Reported, read_reported

ALL = ["total", "run", "hierarchy", "inputs", "noise", "pictures", "training", "settings"]


def sections(page: str) -> list[str | None]:
    return [each["id"] for each in PageReader(page).attributes("section")]


def chart_labels(page: str) -> list[str]:
    return [str(each["alt"]) for each in charts(page)]


def charts(page: str) -> list[dict[str, str | None]]:
    """The images of charts, without the swatches of legends."""
    return [each for each in PageReader(page).attributes("img") if str(each["alt"]).startswith("Chart: ")]


def pictures(page: str) -> list[dict[str, str | None]]:
    return [each for each in PageReader(page).attributes("img") if each["class"] == "picture"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Runs whose evaluations differ in every rate by 0.05."""
    folder = tmp_path_factory.mktemp("runs")
    first = run_folder(folder / "plain", alpha_T=0.0)
    second = run_folder(folder / "lr")
    write_evaluation(evaluation("lr", 0.05), second / "evaluation" / "evaluation.json")
    return first, second


@pytest.fixture(scope="module")
def page(two: tuple[Path, Path]) -> str:
    """The report on the two of them."""
    return page_of(*two)


def test_runs_stand_side_by_side(page: str) -> None:
    read = PageReader(page)
    assert read.open == [] and sections(page) == ALL
    assert [each["href"] for each in read.attributes("a")] == [f"#{name}" for name in ALL]
    assert row(page, "Latent Reconstruction")[0].startswith("none") and row(page, "Latent Reconstruction")[1] != ""
    assert row(page, "iterations") == ["20 of 20, of 4 images each"] * 2
    assert row(page, "evaluated on") == ["fashion_small, test split, 50 images, seed 0"] * 2
    assert row(page, "evaluated with")[0] == "vdvae_lr 0.1.0, torch 2.13.0, python 3.11.7, device cpu"
    assert row(page, "started") == ["2023-11-14 22:13 UTC"] * 2
    assert row(page, "newest checkpoint") == ["iteration 20"] * 2
    assert row(page, "left out") == ["2 updates skipped, 0 bad images"] * 2
    assert "Group 3 has more latents than the image has numbers." in read.text
    assert not read.attributes("script")


def test_totals_come_with_errors_units_and_differences(page: str) -> None:
    assert row(page, "bound (-ELBO)") == ["+3.3% +0.05", "1.500 ± 0.020", "1.550 ± 0.020"]
    assert row(page, "rate") == ["+20.0% +0.2", "1.000 ± 0.010", "1.200 ± 0.010"]
    assert "rate <small>nats/dim, 50 images</small>" in page
    every = page.partition("All 6 quantities")[2]
    assert row(every, "rate") == ["1.000 ± 0.010", "1.200 ± 0.010 +0.2"]


def test_groups_and_resolutions_have_their_numbers(page: str) -> None:
    after_chart = page[page.index("Chart: rate; ") :]
    assert row(after_chart, "0 (1×1)") == ["0.400 ± 0.010", "0.450 ± 0.010"]
    assert row(after_chart, "3 (8×8)") == ["0.100 ± 0.010", "0.150 ± 0.010"]
    assert row(after_chart, "all 4×4") == ["0.500 ± 0.010", "0.600 ± 0.010"]
    after_gap = page[page.index("Chart: latent R²; ") :]
    assert row(after_gap, "2 (4×4)") == ["–", "–"]


def test_inputs_nearest_collapse_are_named_and_shown(page: str) -> None:
    part = page[page.index('<section id="inputs">') : page.index('<section id="noise">')]
    assert len(pictures(part)) == 2
    assert row(part, "5%") == ["0.6", "0.6"] and row(part, "100%") == ["1.5", "1.5"]
    part = part[part.index("Inputs nearest collapse, by number") :]
    assert row(part, "1")[0] == "image 17: 0.5 nats/dim" and row(part, "2")[1] == "image 3: 0.55 nats/dim"


def test_every_number_of_the_log_has_its_chart(page: str) -> None:
    part = page.partition('<section id="training">')[2].partition("</section>")[0]
    names = [label.removeprefix("Chart: ").partition(";")[0] for label in chart_labels(part)]
    assert names == [
        "bound (−ELBO)",
        "rate",
        "distortion",
        "LR loss, in its form's unit",
        "eq. 5",
        "α, the weight of LR",
        "gradient norm, before clipping",
        "skipped updates, since the start",
        "rate by latent group, last held-out bound",
    ]
    by_run = dict(zip(names, (label.rpartition("; ")[2] for label in chart_labels(part)), strict=True))
    assert by_run["LR loss, in its form's unit"] == "lr"  # the other had none
    assert by_run["rate"] == "plain, lr"


def test_lr_losses_of_other_forms_have_charts_of_their_own(tmp_path: Path) -> None:
    """A run from before `lr_reading` is one that reads the full image."""
    settings = ({"lr_form": "raw"}, {"lr_reading": 4}, {"lr_form": "raw", "lr_reading": "full"})
    runs = [run_folder(tmp_path / f"{number}", **changes) for number, changes in enumerate(settings)]
    page = page_of(*runs)
    assert [cell.endswith("reading 4") for cell in row(page, "Latent Reconstruction")] == [False, True, False]
    labels = [label for label in chart_labels(page) if label.startswith("Chart: LR loss")]
    assert [label.partition(";")[0].removeprefix("Chart: LR loss, in its form's unit") for label in labels] == [
        " (0, 2)",
        " (1)",
    ]
    assert [label.rpartition("; ")[2] for label in labels] == ["0, 2", "1"]


def test_noise_is_charted_over_its_variance_and_by_group(page: str) -> None:
    part = page[page.index('<section id="noise">') : page.index('<section id="pictures">')]
    first, second = chart_labels(part)
    assert (
        first
        == "Chart: image RMS, latent noise, in all groups; RMS, 1 = all 255 levels over variance of the noise, in "
        "the latents' own unit; plain, lr"
    )
    assert second.startswith("Chart: image RMS, latent noise 0.4;") and "latent group" in second
    assert len(pictures(part)) == 2


def test_noise_is_charted_by_spatial_scale(tmp_path: Path) -> None:
    bands = [
        Quantity(
            f"noise_band_{band}_raw_{variance}",
            f"image RMS at {band}x{band}, latent noise {variance}",
            "",
            Measurement(band / 100, 0.001, 8),
        )
        for variance in (0.3, 0.4)
        for band in (8, 4, 2, 1)
    ]
    runs = [run_folder(tmp_path / name) for name in ("a", "b")]
    for run in runs:
        found = evaluation()
        write_evaluation(replace(found, quantities=(*found.quantities, *bands)), run / "evaluation" / "evaluation.json")
    page = page_of(*runs)
    part = page[page.index('<section id="noise">') : page.index('<section id="pictures">')]
    labels = [label for label in chart_labels(part) if "spatial" in label or "at 8x8" in label]
    assert labels == [
        "Chart: image RMS by spatial scale, latent noise 0.4; RMS, 1 = all 255 levels over band, coarse to fine "
        "(above: resolution; 1×1: mean); a, b"
    ]


def test_pictures_are_the_first_and_the_last(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a")
    write_picture(run / "images" / "step-00000015.png")
    write_picture(run / "evaluation" / "mine.png")
    part = page_of(run).partition('<section id="pictures">')[2].partition("</section>")[0]
    titles = re.findall(r"<h3>([^<]+)</h3>", part)
    assert titles == ["a, iteration 10", "a, iteration 20", "a, mine.png"]


def test_settings_that_differ_come_first(two: tuple[Path, Path]) -> None:
    runs = [replace(each, chosen=frozenset({"lr_form"})) for each in read_reported([str(run) for run in two])]
    page = report_page(runs, ("zdim",))
    chosen = page[page.index("Settings that differ") : page.index('<section id="hierarchy">')]
    assert re.findall(r'<th scope="row"><code>(\w+)</code></th>', chosen) == ["alpha_T", "lr_form"]
    assert row(chosen, "alpha_T") == ["0.0", "0.5"] and "<strong>information</strong>" in chosen
    assert row(page.partition('<section id="settings">')[2], "dec_blocks") == ["1x1,4m1,4x1,8m4"] * 2


def test_a_run_without_an_evaluation_says_how_to_add_it(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", evaluated=False)
    page = page_of(run)
    assert sections(page) == ["run", "pictures", "training", "settings"]
    assert f"<code>vdvae-lr evaluate {run}</code>" in page


def test_an_evaluation_alone_is_reported(tmp_path: Path) -> None:
    page = page_of(evaluated_folder(tmp_path / "e", "weights"))
    assert sections(page) == ["total", "run", "hierarchy", "inputs", "noise", "settings"]
    assert row(page, "what") == [f"evaluation {tmp_path / 'e'}, of fashion"]


def test_evaluated_and_not_evaluated_runs_share_a_page(tmp_path: Path) -> None:
    without, other = run_folder(tmp_path / "a", evaluated=False), run_folder(tmp_path / "b")
    page = page_of(without, other)
    assert row(page, "rate") == ["–", "1.000 ± 0.010"]
    assert "the difference from" not in page and ">In total</h2>" in page


def test_other_hierarchies_get_charts_of_their_own(tmp_path: Path) -> None:
    first = evaluated_folder(tmp_path / "a", "a")
    short = tuple(Measurement(value, 0.01, 50) for value in (0.3, 0.2))
    rate = Quantity("rate", "rate", "nats/dim", Measurement(0.5, 0.01, 50), short)
    second = evaluated_folder(tmp_path / "b", "b", resolutions=(1, 8), quantities=(rate,), inputs=None)
    rates = [label for label in chart_labels(page_of(first, second)) if label.startswith("Chart: rate")]
    assert [label.partition(";")[0] for label in rates] == ["Chart: rate (a)", "Chart: rate (b)"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 60}, "differ in images (50, 60)"),
        ({"split": "valid"}, "differ in split (test, valid)"),
        ({"seed": 1}, "differ in seed of the noise (0, 1)"),
        ({"model": {"bits": 5}}, "their nats/dim are not comparable"),
        (
            {"settings": {"noise_images": 4}},
            "differ in noise_images (8 against 4): do not compare quantities that depend on them",
        ),
        ({"settings": {}}, "differ in noise_images (8 against not set)"),
        ({"settings": {"noise_images": 0}}, ""),  # measured by one alone
        ({"settings": {"noise_images": 8, "before": "fashion"}}, ""),  # the other has no encoder before fine-tuning
        ({}, ""),
    ],
)
def test_evaluations_of_other_images_are_marked(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    page = page_of(evaluated_folder(tmp_path / "a", "a"), evaluated_folder(tmp_path / "b", "b", **changes))
    assert words in page
    assert ('class="notices"' in page) == bool(words)


def test_encoders_before_fine_tuning_that_differ_are_named(tmp_path: Path) -> None:
    words = [evaluated_folder(tmp_path / name, name, settings={"before": name}) for name in ("a", "b")]
    read = PageReader(page_of(*words))
    assert "differ in the encoder before fine-tuning (a against b): do not compare what it read" in read.text
    assert "quantities that depend on them" not in read.text


def other(title: str, unit: str) -> Quantity:
    return quantity("rate", title, unit, [0.4, 0.3, 0.2, 0.1])


def test_quantities_of_another_definition_have_both_titles(tmp_path: Path) -> None:
    folders = [
        evaluated_folder(tmp_path / f"{draws}", f"{draws}", quantities=(other(f"bound, K = {draws}", "nats/dim"),))
        for draws in (64, 4)
    ]
    page = page_of(*folders)
    assert row(page, "bound, K = 64 / bound, K = 4") == ["–", "1.000 ± 0.010", "1.000 ± 0.010"]
    assert [label for label in chart_labels(page) if "K = " in label] == [
        "Chart: bound, K = 64 / bound, K = 4; nats/dim over latent group, 0 = coarsest (above: resolution); 64, 4"
    ]


def test_units_that_differ_have_charts_of_their_own(tmp_path: Path) -> None:
    inputs = evaluation().inputs
    assert inputs is not None
    folders = [
        evaluated_folder(tmp_path / name, name, quantities=(other("rate", unit),), inputs=replace(inputs, unit=unit))
        for name, unit in (("a", "nats/dim"), ("b", "bits/dim"))
    ]
    page = page_of(*folders)
    assert [label.partition(" over ")[0] for label in chart_labels(page)] == [
        "Chart: rate (a); nats/dim",
        "Chart: rate (b); bits/dim",
        "Chart: ε by the share of ε-collapsed inputs (a); ε, nats/dim",
        "Chart: ε by the share of ε-collapsed inputs (b); ε, bits/dim",
        "Chart: KL(x) by latent group: median, 5 to 95% of the inputs (a); nats/dim",
        "Chart: KL(x) by latent group: median, 5 to 95% of the inputs (b); bits/dim",
    ]
    assert row(page, "rate") == ["–", "1.000 ± 0.010", "1.000 ± 0.010"]


def test_spreads_say_of_how_many_images_they_are(tmp_path: Path) -> None:
    inputs = evaluation().inputs
    assert inputs is not None
    first = evaluated_folder(tmp_path / "a", "a")
    second = evaluated_folder(tmp_path / "b", "b", inputs=replace(inputs, images=2000))
    assert "Curves and bands are of 50 images." in page_of(first)
    assert "measured on different numbers of images: 50 for a, 2,000 for b." in page_of(first, second)


def test_headings_skip_no_level_and_captions_say_something(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in PageReader(page).elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    assert "<figcaption></figcaption>" not in page and '<th scope="col"></th>' not in page
    for part in ("hierarchy", "noise", "training"):
        assert (
            "Bars show ± one standard error over images"
            in page.partition(f'<section id="{part}">')[2].partition("</sec")[0]
        )


def test_spectra_are_averaged_over_images(tmp_path: Path) -> None:
    def entry(values: list[float], **more: object) -> dict[str, object]:
        return {"of": "images", "unit": "raw", "group": None, "singular_values": values} | more

    spectra = [entry([4.0, 2.0, 1.0]), entry([2.0, 1.0]), entry([9.0], group=0), entry([9.0], of="prior_samples"), 7]
    page = page_of(evaluated_folder(tmp_path / "a", details={"spectra": spectra}))
    found = [label for label in chart_labels(page) if "leading singular values" in label]
    assert len(found) == 1 and "latents as they are" in found[0]
    (image,) = [each for each in charts(page) if each["alt"] == found[0]]
    line = re.search(r'<path d="M (\S+) (\S+) L (\S+) (\S+) "[^>]*fill: none; stroke: #0072b2', svg_of(image["src"]))
    assert line is not None and float(line[2]) < float(line[4])  # two points, falling


def test_the_page_needs_nothing_else(page: str) -> None:
    read = PageReader(page)
    assert page.startswith(f"{FIRST_LINE}\n<html")
    metas = {each.get("http-equiv") or each.get("name"): each.get("content") for each in read.attributes("meta")}
    policy = {rule.split()[0]: rule.split()[1:] for rule in str(metas["Content-Security-Policy"]).split("; ")}
    assert policy["default-src"] == ["'none'"] and policy["img-src"] == ["data:"]
    assert not {"script-src", "connect-src", "font-src"} & policy.keys()
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in read.elements}
    assert all(str(image["src"]).startswith("data:image/") for image in read.attributes("img"))
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style.strip() == (files("vdvae_lr.report") / "style.css").read_text(encoding="utf-8").strip()
    assert "url(" not in style and "@import" not in style


def test_tables_name_their_rows_and_columns(page: str) -> None:
    part = page.partition('<section id="total">')[2].partition("</table>")[0]
    cells = [(tag, each.get("scope")) for tag, each in PageReader(part).elements if tag in ("th", "td")]
    assert cells[:5] == [("td", None), *[("th", "col")] * 3, ("th", "row")]  # the first names nothing
    (box,) = PageReader(part).attributes("div")
    assert (box["class"], box["role"], box["tabindex"]) == ("scroll", "region", "0")
    assert box["aria-label"] == "Chief quantities in total"


@pytest.mark.parametrize(("rows", "box"), [(30, "scroll"), (31, "scroll tall")])
def test_long_tables_scroll_in_their_box(tmp_path: Path, rows: int, box: str) -> None:
    settings = {f"setting{number}": number for number in range(rows)}
    read = PageReader(page_of(evaluated_folder(tmp_path / "e", settings=settings)))
    (found,) = [each for each in read.attributes("div") if each.get("aria-label") == "Settings of the evaluation"]
    assert found["class"] == box


def test_equal_files_give_equal_pages(two: tuple[Path, Path], page: str) -> None:
    assert page_of(*two) == page


HOSTILE = "<script>alert(1)</script>"


def test_nothing_in_files_becomes_markup(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", desc=HOSTILE, dataset=HOSTILE, lr_form=HOSTILE, pretrained=HOSTILE, zdim=HOSTILE)
    hostile = Quantity("rate", HOSTILE, HOSTILE, Measurement(1.0, None, 5), (Measurement(1.0, None, 5),) * 4)
    names = {"name": HOSTILE, "source": HOSTILE, "dataset": HOSTILE, "split": HOSTILE, "notes": (HOSTILE,)}
    maps = {"versions": {HOSTILE: HOSTILE}, "settings": {HOSTILE: HOSTILE}}
    made = replace(evaluation(), quantities=(hostile,), **names, **maps)
    write_evaluation(made, run / "evaluation" / "evaluation.json")
    read = PageReader(page_of(f"{HOSTILE}={run}"))
    assert read.open == [] and not read.attributes("script")
    assert read.text.count(HOSTILE) > 10
    inside = [value for _, each in read.elements for name, value in each.items() if name.startswith("on")]
    assert inside == []


def test_addresses_lose_their_secrets(tmp_path: Path) -> None:
    secret = "https://me:password@example.org/w.th?token=abc"
    page = page_of(run_folder(tmp_path / "a", pretrained=secret))
    assert "https://example.org/w.th" in page and "password" not in page and "token" not in page


def test_reported_knows_when_it_knows_nothing() -> None:
    assert (Reported("a", Path("a")).iteration, Reported("a", Path("a")).resolutions) == (0, ())
