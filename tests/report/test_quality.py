"""The quality of pictures on the report's page: beside one another, with a warning if it was measured differently."""

from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from reported_folders import PageReader, evaluated_folder, evaluation, page_of, row, run_folder

from vdvae_lr.evaluation.document import write_evaluations
from vdvae_lr.evaluation.quantities import Measurement, Quantity

SETTINGS = {"samples": 50_000, "image": "auto"}
DIGEST = "6726825d" + "0" * 56


def quality(folder: Path, fid: float, *, kid: bool = True, others: int = 0, **changes: Any) -> None:
    """Write what `vdvae-lr quality` leaves."""
    names = {"fid": fid, "kid": 0.0123456, "kid_spread": 0.001, "precision": 0.75} if kid else {"fid": fid}
    quantities = tuple(
        Quantity(f"{name}_samples_1.0", f"{name.upper()}, samples", "", Measurement(value, None, 50_000))
        for name, value in names.items()
    )
    details = {"extractor": {"name": "Inception", "sha256": DIGEST}}
    made = evaluation(quantities=quantities, inputs=None, details=details, settings=SETTINGS, notes=("WARNING: few.",))
    made = type(made)(**{**vars(made), **changes})
    models = {"model": made} | {f"other {number}": made for number in range(others)}
    write_evaluations(models, folder / "quality.json")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A run with its evaluation, and an evaluation alone."""
    return [run_folder(tmp_path / "run"), evaluated_folder(tmp_path / "before", "before")]


def test_scores_stand_beside_one_another(folders: list[Path]) -> None:
    quality(folders[0] / "evaluation", 12.345)
    quality(folders[1], 20.0, kid=False)
    page = page_of(*folders)
    assert row(page, "FID, samples") == ["12.35", "20.00"]
    assert row(page, "KID, samples") == ["0.01235 ± 0.00100", "–"]
    assert row(page, "PRECISION, samples") == ["0.750", "–"]
    assert row(page, "images") == ["fashion_small, test split, 50"] * 2
    assert row(page, "extractor") == [DIGEST[:8]] * 2
    read = PageReader(page)
    assert "quality" in [each["id"] for each in read.attributes("section")]
    assert "#quality" in [each["href"] for each in read.attributes("a")]
    assert "Do not compare" not in read.text and "WARNING: few." in read.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": SETTINGS | {"samples": 10_000}}, "samples."),
        ({"split": "train"}, "images."),
        ({"seed": 1, "details": {}}, "seed, extractor."),
    ],
)
def test_what_was_measured_differently_is_named(folders: list[Path], changes: dict[str, Any], words: str) -> None:
    quality(folders[0] / "evaluation", 1.0)
    quality(folders[1], 1.0, **changes)
    assert f"Do not compare the models: they differ in {words}" in PageReader(page_of(*folders)).text


def test_without_a_file_of_this_model_alone_there_is_no_section(folders: list[Path]) -> None:
    quality(folders[0] / "evaluation", 1.0, others=1)
    assert "quality" not in [each["id"] for each in PageReader(page_of(*folders)).attributes("section")]
    quality(folders[1], 1.0)
    assert row(page_of(*folders), "FID, samples") == ["1.00"]


def test_a_damaged_file_is_named(folders: list[Path]) -> None:
    (folders[1] / "quality.json").write_text("{")
    with refused("quality.json", "damaged", "again"):
        page_of(*folders)
