"""The study of what LR buys and costs: its rows are settings of train.py, and each runs once."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.errors import InputError
from vdvae_lr.files.bundled import CHECKOUT_ROOT


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, called in the checkout."""
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "study"))
    monkeypatch.chdir(CHECKOUT_ROOT)
    import study_price

    return study_price


def every_row(study: ModuleType) -> list[object]:
    return [row for rows in study.STAGES.values() for row in rows]


def test_rows_are_different_settings_of_train(study: ModuleType, tmp_path: Path) -> None:
    place = study.Study("fashion8", tmp_path, tmp_path)
    rows = every_row(study)
    assert len({row.label for row in rows}) == len(rows)
    seen = set()
    for row in rows:
        settings, _ = resolve_settings(list(place.job(row).commands[0][1:]), "train.py")
        assert settings.run.iters == row.lengths * 2000
        assert settings.run.seed == row.seed
        assert (settings.run.pretrained == "none") == (row.start == "")
        seen.add((str(settings.objective), settings.run.iters, settings.run.seed, settings.run.pretrained))
    assert len(seen) == len(rows)


def test_a_row_comes_after_the_one_that_it_starts_from(study: ModuleType) -> None:
    rows = every_row(study)
    for number, row in enumerate(rows):
        assert not row.start or f"{row.start}-seed{row.seed}" in {earlier.label for earlier in rows[:number]}


def test_photographs_are_averaged_and_kept_in_order(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import study_price_data

    parts = {"train": slice(0, 2), "valid": slice(2, 3), "test": slice(3, 4)}
    monkeypatch.setattr(study_price_data, "_PHOTOS", parts)
    photos = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", train=photos)
    study_price_data.prepare(None, tmp_path / "photos.npz", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos.npz", "photos16", "photos8"]
    (only,) = (tmp_path / "photos8" / "test").iterdir()
    with Image.open(only) as picture:
        found = np.asarray(picture)
    expected = photos[3].reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(found - expected).max() <= 0.5


def test_no_images_is_one_sentence(study: ModuleType, tmp_path: Path) -> None:
    import study_price_data

    with pytest.raises(InputError, match="--fashion"):
        study_price_data.prepare(None, None, tmp_path)


@pytest.fixture
def tiny(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The study with three images of each part, and runs of two iterations."""
    for part in ("train", "valid", "test"):
        folder = tmp_path / "fashion8" / part
        folder.mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setattr(study, "EXAMPLES", 3)
    monkeypatch.setattr(study, "READER_ITERATIONS", 2)
    return study.Study("fashion8", tmp_path, tmp_path / "results")


@pytest.mark.slow
def test_a_row_runs_once_and_another_one_starts_from_it(study: ModuleType, tiny: object, tmp_path: Path) -> None:
    from row_jobs import run_jobs
    from study_lr_forms_table import COLUMNS, read_results

    short = " --n_batch 2 --global_batch 2 --iters_per_print 1 --iters_per_eval 2 --eval_examples 2"
    first = replace(study.STAGES["collapsed"][0], words="--alpha_T 0" + short, lengths=0.001)
    second = replace(first, name="second", words="--alpha_T 0.3" + short, start=first.title)
    assert run_jobs([tiny.job(first), tiny.job(second)], tmp_path, 1) == 0
    results = {result.name: result for result in read_results(tmp_path / "results")}
    assert set(results) == {first.title, second.title}
    assert {column.key for column in COLUMNS} <= results[second.title].measured.keys()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("*/*.json")}
    content = json.loads(next(path for path in written if "second" in path.name).read_text())
    assert [line["iteration"] for line in content["curve"] if line["kind"] == "train"] == [1, 2]
    assert run_jobs([tiny.job(first), tiny.job(second)], tmp_path, 2) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_failed_row_is_counted_and_named(
    study: ModuleType, tiny: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from row_jobs import run_jobs

    monkeypatch.setattr(sys, "executable", "false")
    row = every_row(study)[0]
    assert run_jobs([tiny.job(row)], tmp_path, 1) == 1
    assert row.label in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_the_document_holds_the_recorded_results(study: ModuleType) -> None:
    import study_price_table

    results = study.read_results(study.RESULTS)
    assert {result.name for result in results} <= {row.title for row in every_row(study)}
    document = study_price_table.DOCUMENT.read_text(encoding="utf-8")
    assert study_price_table.filled(document, results) == document, "run `python scripts/study/study_price.py table`"


def test_figures_are_pictures(study: ModuleType, tmp_path: Path) -> None:
    study.draw_price(study.read_results(study.RESULTS), "fashion8", tmp_path / "price.png")
    study.draw_curves(study.RESULTS, "fashion8", study.preset_of("fashion8"), tmp_path / "curves.png")
    for name in ("price.png", "curves.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
