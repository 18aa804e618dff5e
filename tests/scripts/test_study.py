"""The study of the forms: its rows are settings of train.py, a row runs once, the document holds its results."""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.evaluation.document import read_evaluations
from vdvae_lr.files.bundled import CHECKOUT_ROOT

TINY = (
    "--hps fashion --pretrained none --image_size 8 --image_channels 3 --width 8 --custom_width_str= --zdim 2 "
    "--enc_blocks 8x1,8d8,1x1 --dec_blocks 1x1,8m1 --no_bias_above 8 --num_mixtures 2 --n_batch 2 --global_batch 2"
)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "study"))
    import study_lr_forms

    return study_lr_forms


@pytest.fixture
def tables(study: ModuleType) -> ModuleType:
    """The tables as a module."""
    return sys.modules["study_lr_forms_table"]


def test_rows_are_different_settings_of_train(study: ModuleType, tmp_path: Path) -> None:
    place = study.Study("fashion", ("--hps", "fashion"), ("--dataset", "fashion"), tmp_path, tmp_path, 300, 1000)
    assert len({row.name for row in study.ROWS}) == len(study.ROWS) == len(set(study.ROWS))
    assert {*study.CONFIRMED, *study.LONGER} <= {row.name for row in study.ROWS}
    for row in study.ROWS:
        settings, _ = resolve_settings(study.training_words(place, row, 5), "train.py")
        words = f"{settings.objective.lr_form} {settings.objective.lr_target} {settings.objective.lr_image} "
        words += f"{settings.objective.lr_latents} {settings.objective.lr_reduction} {settings.objective.alpha_T:g}"
        assert row.name in (words.replace(" ", "-"), "plain")
        assert (settings.objective.alpha_T == 0) == (row.name == "plain")
        assert (settings.run.seed, settings.run.iters, settings.run.pretrained) == (5, 300, "fashion")


@pytest.mark.parametrize(
    ("words", "data", "iters", "rows", "seeds"),
    [
        ("screen", "fashion", 300, "ROWS", (0,)),
        ("confirm --data photos", "photos", 300, "CONFIRMED", (0, 1, 2)),
        ("longer", "fashion_longer", 1200, "LONGER", (0,)),
        ("longer --data photos --iters 5 --seeds 3 4", "photos_longer", 5, "LONGER", (3, 4)),
        ("confirm --rows plain", "fashion", 300, ("plain",), (0, 1, 2)),
    ],
)
def test_stages_run_their_rows(
    study: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    data: str,
    iters: int,
    rows: str | tuple[str, ...],
    seeds: tuple[int, ...],
) -> None:
    called = []
    monkeypatch.setattr(study, "run_rows", lambda *arguments: called.append(arguments) or 0)
    monkeypatch.setattr(sys, "argv", ["study_lr_forms.py", *words.split()])
    assert study.main() == 0
    ((place, todo, jobs),) = called
    names = getattr(study, rows) if isinstance(rows, str) else rows
    expected = {(getattr(name, "name", name), seed) for name in names for seed in seeds}
    assert (place.data, place.iters, jobs) == (data, iters, 1)
    assert {(row.name, seed) for row, seed in todo} == expected
    assert len(todo) == len(expected)


def test_photos_preset_is_the_model_of_the_document(study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT_ROOT)
    settings, _ = resolve_settings(["--hps", study.PHOTOS_PRESET], "train.py")
    assert (settings.model.image_size, settings.model.image_channels, settings.run.pretrained) == (16, 3, "none")


def tiny_study(study: ModuleType, folder: Path) -> object:
    """A study of a model of two groups on six images."""
    for part in ("train", "valid", "test"):
        (folder / "images" / part).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / part / f"{number}.png")
    dataset = ("--dataset", "folder", "--data_root", str(folder / "images"))
    return study.Study("fashion", tuple(TINY.split()), dataset, folder / "work", folder / "results", 1, 2)


@pytest.mark.slow
def test_row_runs_once_and_leaves_what_was_measured(
    study: ModuleType, tables: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tiny_study(study, tmp_path)
    row = study.ROWS[2]
    assert study.run_rows(tiny, [(row, 1)], jobs=1) == 0
    path = tmp_path / "results" / "fashion" / f"{row.name}-seed1.json"
    written = path.read_bytes(), path.stat().st_mtime_ns
    compared = read_evaluations(next((tmp_path / "work" / "comparisons").glob("*/comparison.json")))
    (result,) = tables.read_results(tmp_path / "results")
    assert result.seed == 1
    for key, (value, _) in result.measured.items():
        assert value == compared[row.name].quantity(key).total.value
    assert {column.key for column in tables.COLUMNS} <= result.measured.keys()

    assert study.run_rows(tiny, [(row, 1)], jobs=2) == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == written
    assert study.run_rows(replace(tiny, iters=2), [(row, 1)], jobs=1) == 1
    assert "other --iters" in capsys.readouterr().out
    assert path.read_bytes() == written[0]


def test_failed_row_is_counted_and_named(
    study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    tiny = study.Study("fashion", (), (), tmp_path, tmp_path, 1, 2)
    assert study.run_rows(tiny, [(study.ROWS[1], 0)], jobs=1) == 1
    assert study.ROWS[1].name in capsys.readouterr().out
    assert not (tmp_path / "fashion").exists()


def recorded(tables: ModuleType, name: str, seed: int, bound: float, alpha: float) -> object:
    """A made-up result."""
    settings = {"lr_form": "information", "lr_target": "live", "lr_image": "sample", "lr_latents": "prior"}
    measured = {column.key: (0.25, 0.125) for column in tables.COLUMNS} | {"negative_elbo": (bound, 0.5)}
    return tables.Result("fashion", name, seed, settings | {"lr_reduction": "sum", "alpha_T": alpha}, measured)


def test_table_has_means_errors_and_differences_by_seed(tables: ModuleType) -> None:
    bounds = {"plain": [2.0, 4.0], "a-b": [2.2, 4.2]}
    results = [recorded(tables, name, seed, bounds[name][seed], 0) for name in ("a-b", "plain") for seed in (0, 1)]
    table = tables.markdown_table(tables.rows_of(results, "fashion", "confirm")).splitlines()
    differences = [100 * (2.2 / 2.0 - 1), 100 * (4.2 / 4.0 - 1)]
    error = statistics.stdev(differences) / 2**0.5
    assert [line.split(" | ")[0] for line in table[2:]] == ["| plain", "| a b"]
    assert f"| {statistics.fmean(differences):+.2f} ± {error:.2f} | 3.2000 ± 1.0000 |" in table[3]
    screened = tables.markdown_table(tables.rows_of(results, "fashion", "screen")).splitlines()
    assert "| +10.00 | 2.2000 | 0.2500 |" in screened[3]
    assert "0.2500 ± 0.1250" in screened[3]


def test_document_holds_the_recorded_results(study: ModuleType, tables: ModuleType) -> None:
    results = tables.read_results(CHECKOUT_ROOT / "docs" / "studies" / "lr_forms")
    assert {result.name for result in results} <= {row.name for row in study.ROWS}
    document = tables.DOCUMENT.read_text(encoding="utf-8")
    blocks = [(found[2], found[3]) for found in tables.BLOCK.finditer(document)]
    screened_and_confirmed = [("fashion", "screen"), ("fashion", "confirm"), ("photos", "confirm")]
    assert blocks == [*screened_and_confirmed, ("fashion_longer", "screen"), ("photos_longer", "screen")]
    assert tables.filled(document, results) == document, "run `python scripts/study/study_lr_forms.py table`"


def test_empty_places_are_filled_each_by_itself(tables: ModuleType) -> None:
    place = "<!-- results: fashion {} -->\n\n<!-- end of results -->\n"
    document = f"{place.format('screen')}\nbetween\n\n{place.format('confirm')}"
    results = [recorded(tables, "plain", seed, 2.0, 0) for seed in (0, 1)]
    once = tables.filled(document, results)
    assert "\nbetween\n" in once
    assert once.count("| plain |") == 2
    assert tables.filled(once, results) == once


def test_figure_is_a_picture(study: ModuleType, tables: ModuleType, tmp_path: Path) -> None:
    results = [recorded(tables, name, seed, 2.0 + seed, 1) for name in ("plain", "a") for seed in (0, 1)]
    study.draw(results, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
