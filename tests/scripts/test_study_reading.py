"""Who can read the study's rows: the command of a reading, its table, and that the document holds the readings."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import tyro

from vdvae_lr.cli.evaluate import EvaluateSettings
from vdvae_lr.files.bundled import CHECKOUT_ROOT


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "study"))
    import study_lr_forms_reading

    return study_lr_forms_reading


def measured(*values: float) -> dict[str, list[float]]:
    keys = ("information_from_samples", "information_from_samples_before")
    keys += ("recovered_sampled_image", "recovered_sampled_image_before")
    return {key: [value, 0.01] for key, value in zip(keys, values, strict=True)}


def test_a_reading_leaves_out_what_it_does_not_need(reading: ModuleType, tmp_path: Path) -> None:
    study = reading.Study("fashion", (), ("--dataset", "fashion"), tmp_path, tmp_path, 300, 1000)
    command, *words = reading.reading_words(study, reading.ROWS[1], 2, 300)
    settings = tyro.cli(EvaluateSettings, args=words, use_underscores=True)
    assert (command, settings.examples, settings.images, settings.before) == ("evaluate", 300, 0, "")
    assert {getattr(settings.sections, name) for name in reading.LEFT_OUT} == {0}
    assert settings.sections.reader_iterations == 0
    _, *words = reading.reading_words(study, reading.ROWS[1], 2, 300, 500)
    assert tyro.cli(EvaluateSettings, args=words, use_underscores=True).sections.reader_iterations == 500
    assert settings.folder == tmp_path / "evaluations" / study.label(reading.ROWS[1], 2)


def test_table_has_means_over_seeds_and_plain_first(reading: ModuleType) -> None:
    readings = {
        "a": {"data": "fashion", "name": "some-row", "measured": measured(0.9, 0.5, 0.1, 0.2)},
        "b": {"data": "fashion", "name": "plain", "measured": measured(0.1, 0.2, 0.3, 0.4)},
        "c": {"data": "fashion", "name": "plain", "measured": measured(0.3, 0.4, 0.5, 0.6)},
        "d": {"data": "photos", "name": "plain", "measured": measured(0.0, 0.0, 0.0, 0.0)},
    }
    rows = reading.reading_table(readings, "fashion").splitlines()[2:]
    assert rows == [
        "| plain | 2 | 0.2000 | 0.3000 | 0.4000 | 0.5000 |",
        "| some row | 1 | 0.9000 | 0.5000 | 0.1000 | 0.2000 |",
    ]


def test_a_fresh_reader_has_a_column_if_every_row_was_read_by_one(reading: ModuleType) -> None:
    read = measured(0.9, 0.5, 0.1, 0.2) | {"information_from_samples_fresh": [0.8, 0.01]}
    readings = {"a": {"data": "fashion", "name": "plain", "measured": read}}
    assert reading.reading_table(readings, "fashion").splitlines()[2] == (
        "| plain | 1 | 0.9000 | 0.5000 | 0.8000 | 0.1000 | 0.2000 |"
    )
    readings["b"] = {"data": "fashion", "name": "other", "measured": measured(0.9, 0.5, 0.1, 0.2)}
    assert reading.reading_table(readings, "fashion").splitlines()[3] == (
        "| other | 1 | 0.9000 | 0.5000 | 0.1000 | 0.2000 |"
    )


@pytest.mark.parametrize("data", ["fashion", "photos", "fashion_longer", "photos_longer"])
def test_document_holds_the_readings(reading: ModuleType, data: str) -> None:
    readings = json.loads((CHECKOUT_ROOT / "docs" / "studies" / "lr_forms" / "readings.json").read_text())
    table = reading.reading_table(readings, data)
    assert len(table.splitlines()) > 4
    assert table in reading.DOCUMENT.read_text()
