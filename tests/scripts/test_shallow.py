"""The scripts of the shallow study: rows are settings of train.py, and results become tables beside the paper's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.files.bundled import CHECKOUT_ROOT


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module, called in the checkout."""
    monkeypatch.chdir(CHECKOUT_ROOT)
    import shallow

    yield shallow


def test_tables_have_the_papers_rows(shallow: ModuleType) -> None:
    import shallow_rows

    assert [len(shallow_rows.rows_of(table)) for table in (1, 2, 3, 4)] == [13, 14, 13, 9]
    for row in shallow_rows.ROWS:
        for units, kl, information in row.paper.values():
            assert 0 <= units <= 1
            assert kl > 0
            assert 2 < information < 4


@pytest.mark.parametrize("protocol", ["full", "reduced"])
@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_rows_are_different_settings_of_train(shallow: ModuleType, tmp_path: Path, table: int, protocol: str) -> None:
    import shallow_rows

    study = shallow.Study(table, protocol, tmp_path, tmp_path)
    seen, rows = set(), shallow_rows.rows_of(table)
    for row in rows:
        train, measure = study.job(row, 3).commands
        settings, _ = resolve_settings(list(train[1:]), "train.py")
        assert (settings.run.seed, settings.data.dataset) == (3, shallow_rows.DATA_SETS[table].name)
        assert settings.run.n_batch == (128 if protocol == "full" else 32)
        numbers = settings.model.image_channels * settings.model.image_size**2
        assert numbers == shallow_rows.DATA_SETS[table].numbers
        assert Path(measure[3]) == Path(settings.run.save_dir) / settings.run.name
        seen.add((str(settings.objective), str(settings.model), str(settings.optimisation)))
    assert len(seen) == len(rows)


def test_changed_settings_have_places_of_their_own(shallow: ModuleType, tmp_path: Path) -> None:
    import shallow_rows

    row = shallow_rows.ROWS[0]
    changes = ({}, {"extra": ("--pixel_variance", "1")}, {"extra": ("--pixel_variance", "2")}, {"examples": 100})
    jobs = [shallow.Study(1, "reduced", tmp_path, tmp_path, **change).job(row, 0) for change in changes]
    for places in ({job.label for job in jobs}, {job.result for job in jobs}, {job.commands[1][3] for job in jobs}):
        assert len(places) == len(jobs)


def result(preset: str, seed: int, units: float, kl: float) -> dict[str, Any]:
    keys = ("mutual_information", "mutual_information_set", "information_from_samples", "recovered_mean_image")
    measured = dict.fromkeys(keys, 2.0) | {"active_latents": 100 * units, "rate": kl, "theorem_bound": 3.5}
    return {
        "name": preset,
        "seed": seed,
        "settings": {"lr": 0.001, "seed": seed},
        "seconds": [60, 30],
        "dimensions": 784,
        "measured": {
            key: {"value": value if key == "active_latents" else value / 784} for key, value in measured.items()
        },
        "by_group": {"composite_deviation": [0.75]},
        "geometry": [{"rate": rate / 784, "least_kl": 0.0, "local_bi_lipschitz": 9.0} for rate in (kl - 1, kl + 1)],
        "curve": [{"iteration": 100 * step, "rate_nats_per_dim": kl / 784} for step in (1, 2)],
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three rows, one of them with two seeds, whose order is that of the paper in AU and reversed in KL."""
    place = tmp_path / "reduced" / "fashion"
    place.mkdir(parents=True)
    rows = (("vae", 0, 0.2, 9.0), ("vae", 1, 0.4, 11.0), ("beta_0.2", 0, 0.5, 8.0), ("lrvae_1", 0, 0.9, 9.5))
    for preset, seed, units, kl in rows:
        (place / f"{preset}-seed{seed}.json").write_text(json.dumps(result(preset, seed, units, kl)))
    return tmp_path


def test_the_page_has_the_papers_numbers_beside_ours(shallow: ModuleType, results: Path) -> None:
    import shallow_page

    page = "before\n<!-- shallow: reduced 1 -->\nold\n<!-- end of shallow -->\nafter\n"
    lines = shallow_page.filled(page, results).splitlines()
    assert "old" not in lines
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["VAE", "β-VAE, β 0.2", "LRVAE, α 1"]
    assert rows[2][1:8] == ["2", "0.30 ± 0.14", "0.13", "10.00 ± 1.41", "7.10", "2.00 ± 0.00", "3.84"]
    assert rows[4][1:6] == ["1", "0.90", "0.41", "9.50", "12.41"]
    assert rows[4][-1] == "2"
    assert any(line.endswith("over 3 rows: AU 1.00, KL -1.00.") for line in lines)


def test_without_results_the_page_says_so(shallow: ModuleType, tmp_path: Path) -> None:
    import shallow_page

    page = shallow_page.filled("<!-- shallow: full 4 -->\n<!-- end of shallow -->\n", tmp_path)
    assert "No row of this table has a result yet." in page


def test_the_decoders_have_a_table(shallow: ModuleType, results: Path) -> None:
    import shallow_page

    (result_file,) = (results / "reduced" / "fashion").glob("lrvae_1-*")
    content = json.loads(result_file.read_text())
    content["measured"] |= {"kappa_min": {"value": 0.25}, "noise_rms_raw_1.0": {"value": 0.2}}
    result_file.write_text(json.dumps(content))
    lines = shallow_page.filled("<!-- shallow: reduced 1 decoder -->\n<!-- end of shallow -->\n", results).splitlines()
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    found = dict(zip(heads, rows[-1], strict=True))
    assert found["row"] == "LRVAE, α 1"
    assert (found["κ_min"], found["noise 1"], found["‖J_E∘D − I‖"]) == ("0.250", "0.20", "0.75")  # no unit
    assert (found["least KL"], found["their KL"], found["s_max"]) == ("3.50", "9.50", "")  # nats of an image


def test_changed_settings_have_a_table_of_their_own(shallow: ModuleType, results: Path) -> None:
    import shallow_page

    place = results / "reduced-lr-0.01" / "fashion"
    place.mkdir(parents=True)
    changed = result("vae", 7, 0.1, 6.0)
    changed["settings"]["lr"] = 0.01
    (place / "vae-seed7.json").write_text(json.dumps(changed))
    page = "<!-- shallow: reduced 1 changed -->\n<!-- end of shallow -->\n"
    assert "| VAE | `--lr 0.01` | 0.10 | 6.00 | 2.00 |" in shallow_page.filled(page, results)
    assert "No row has run with other settings yet." in shallow_page.filled(page.replace("reduced", "full"), results)


def test_curves_are_drawn(shallow: ModuleType, results: Path, tmp_path: Path) -> None:
    import shallow_page

    target = tmp_path / "curves.png"
    shallow_page.draw_curves(shallow_page.read_results(results, "reduced", 1), 1, target)
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["table", "5"], "table takes one of 1, 2, 3, 4, not 5"),
        (["figure", "1"], "figure takes one of 3, 4, 5, not 1"),
        (["table", "1", "--jobs", "0"], "--jobs is 0; it must be 1 or more"),
        (["figure", "5", "--rows", "vae"], "--rows goes with a table"),
        (["table", "4", "--rows", "beta_0.4"], "table 4 has no row beta_0.4; its rows are vae, sa_vae"),
    ],
)
def test_bad_words_are_one_sentence(
    shallow: ModuleType,
    words: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["shallow.py", *words])
    with pytest.raises(SystemExit):
        shallow.main()
    assert complaint in capsys.readouterr().err


def test_no_figure_of_rows_that_another_program_runs(
    shallow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shallow, "run_jobs", lambda *_: 0)  # as if each row were locked
    places = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["shallow.py", "figure", "5", *places])
    assert shallow.main() == 1
    assert "another program runs full-fashion-vae-seed0" in capsys.readouterr().out


def test_a_job_says_how_far_it_is(
    shallow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import row_jobs

    (tmp_path / "logs").mkdir()
    monkeypatch.setattr(row_jobs, "_REPORT_S", 0.3)
    script = "import time; print('step 1/2', flush=True); time.sleep(1.5)"
    row_jobs.timed("row", [sys.executable, "-c", script], tmp_path)
    assert "row: step 1/2" in capsys.readouterr().out
    with pytest.raises(subprocess.CalledProcessError):
        row_jobs.timed("row", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_a_job_that_was_interrupted_adds_its_times_up(
    shallow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import row_jobs

    flag, target = tmp_path / "flag", tmp_path / "result.json"
    wait = ("-c", "import time; time.sleep(0.6)")
    fail_once = ("-c", f"import pathlib; f = pathlib.Path({str(flag)!r}); g = f.exists(); f.touch(); assert g")
    job = row_jobs.Job("row", target, (wait, fail_once), dict)
    monkeypatch.setattr(row_jobs, "versions", lambda: {"commit": "first"})
    assert row_jobs.run_jobs([job], tmp_path, 1) == 1
    monkeypatch.setattr(row_jobs, "versions", lambda: {"commit": "second"})
    assert row_jobs.run_jobs([job], tmp_path, 1) == 0
    found = json.loads(target.read_text())
    assert found["seconds"][0] >= 1  # twice 0.6
    assert found["versions"] == {"commit": "first"}
