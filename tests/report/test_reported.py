"""What a report reads of runs and evaluations, and the sentences on what it cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
from reported_folders import RESOLUTIONS, evaluated_folder, run_folder
from short_runs import LAST, records_of, short_run

from vdvae_lr.errors import InputError
from vdvae_lr.report.page import report_page
from vdvae_lr.report.reported import Reported, read_reported


def read(*words: object) -> list[Reported]:
    return read_reported([str(word) for word in words])


def test_a_real_run_is_read_whole(tmp_path: Path) -> None:
    run = short_run(tmp_path)
    (reported,) = read(run)
    assert (reported.label, reported.is_run, reported.iteration) == ("run", True, LAST)
    assert reported.settings == json.loads((run / "settings.json").read_text())
    assert reported.resolutions == (1, 4, 8)
    assert reported.checkpoints == (3, 6)
    assert [path.name for path in reported.pictures] == ["step-00000003.png", "step-00000006.png"]
    iterations, bounds = reported.series("eval", "negative_elbo_nats_per_dim")
    expected = [(line["iteration"], line["negative_elbo_nats_per_dim"]) for line in records_of(run, "eval")]
    assert list(zip(iterations, bounds, strict=True)) == expected
    assert reported.started is not None and reported.last_written is not None
    assert 0 <= (reported.last_written - reported.started).total_seconds() + 1 < 600
    assert [f"evaluate {run}" in remark for remark in reported.remarks] == [True]


def test_an_evaluated_run_has_no_remark(tmp_path: Path) -> None:
    (reported,) = read(run_folder(tmp_path / "a"))
    assert reported.evaluation is not None and reported.evaluation.name == "a"
    assert reported.remarks == ()
    assert reported.started is not None and f"{reported.started:%Y-%m-%d %H:%M}" == "2023-11-14 22:13"


@pytest.mark.parametrize("name", ["", "evaluation.json"])
def test_an_evaluation_alone_is_read(tmp_path: Path, name: str) -> None:
    (reported,) = read(evaluated_folder(tmp_path / "e", "some weights") / name)
    assert (reported.label, reported.is_run, reported.resolutions) == ("some weights", False, RESOLUTIONS)
    assert [path.name for path in reported.evaluation_pictures] == ["nearest_collapse.png", "noise_raw_0.4.png"]


def test_numbers_that_are_none_are_nan(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a")
    lines = [
        {"kind": "train", "iteration": 1, "x": None},
        {"kind": "train", "iteration": 2, "x": 3},
        {"kind": "train", "iteration": 3, "x": "3"},
        {"kind": "train", "iteration": 4},
    ]
    (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (reported,) = read(run)
    iterations, values = reported.series("train", "x")
    np.testing.assert_array_equal(iterations, [1, 2, 3])
    np.testing.assert_array_equal(values, [np.nan, 3, np.nan])
    assert len(reported.series("train", "y")[0]) == 0


def test_numbers_too_large_for_a_float_are_nan(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", iters=10**400)
    huge = "1" + "0" * 400
    (run / "log.jsonl").write_text(f'{{"kind": "train", "iteration": 1, "x": {huge}}}\n')
    (reported,) = read(run)
    np.testing.assert_array_equal(reported.series("train", "x")[1], [np.nan])
    assert report_page([reported])


@pytest.mark.parametrize("iteration", ["-1", "9007199254740992", "1" + "0" * 400, "true", "1.5"])
def test_iterations_that_are_none_are_left_out(tmp_path: Path, iteration: str) -> None:
    run = run_folder(tmp_path / "a")
    whole = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(f'{whole}{{"kind": "train", "iteration": {iteration}}}\n')
    (reported,) = read(run)
    assert reported.iteration == 20 and len(reported.records) == len(whole.splitlines())
    assert reported.remarks == ("1 line of its log could not be read and are left out.",)


@pytest.mark.parametrize(
    ("damage", "left_out"),
    [('{"kind": "tr', 0), ('{"kind": "tr\n', 1), ("\0\n[]\n", 2), ('{"kind": 1, "iteration": 1}\n', 1)],
)
def test_lines_that_are_none_are_left_out(tmp_path: Path, damage: str, left_out: int) -> None:
    run = run_folder(tmp_path / "a")
    whole = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(whole + damage)
    (reported,) = read(run)
    assert len(reported.records) == len(whole.splitlines())
    assert sum("could not be read" in remark for remark in reported.remarks) == bool(left_out)
    assert any(remark.startswith(f"{left_out} ") for remark in reported.remarks) == bool(left_out)


def test_remarks_name_what_is_missing(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a", evaluated=False, iters=30)
    (run / "checkpoints" / "step-00000020").rmdir()
    (reported,) = read(run)
    assert reported.remarks == (
        "It has no checkpoint, so there are no weights to evaluate yet.",
        "It is at iteration 20 of 30.",
    )


@pytest.mark.parametrize(("iteration", "stale"), [(20, False), (10, True), (None, False)])
def test_an_evaluation_older_than_the_weights_is_remarked_on(
    tmp_path: Path, iteration: int | None, stale: bool
) -> None:
    run = run_folder(tmp_path / "a")
    evaluated_folder(run / "evaluation", iteration=iteration)
    assert any("iteration 10, and there is a newer one" in remark for remark in read(run)[0].remarks) == stale


def test_labels_are_chosen_and_told_apart(tmp_path: Path) -> None:
    first, second = run_folder(tmp_path / "x" / "lr"), run_folder(tmp_path / "y" / "lr")
    third, fourth = run_folder(tmp_path / "x" / "plain"), run_folder(tmp_path / "odd=name")
    assert [each.label for each in read(first, second, third, fourth)] == ["x/lr", "y/lr", "plain", "odd=name"]
    assert [each.label for each in read(f"α 1={first}", f"α 1={third}")] == ["x/α 1 (1)", "x/α 1 (2)"]
    assert [each.label for each in read(f"before={first}", second)] == ["before", "lr"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is no run to report on; give a run's folder"),
        (["a"] * 5, "5 runs are too many to tell apart in one chart; report on at most 4"),
        (["a", "./a"], "is named twice"),
        (["missing"], "there is no folder missing; give a training run"),
        (["=a"], "'=a' names no run; write RUN, or NAME=RUN."),
        (["a/images"], "is neither a run nor an evaluation: it has no settings.json and no evaluation.json"),
        (["no-json"], "settings.json is damaged: it holds no settings"),
        (["no-object"], "settings.json is damaged: it holds no settings"),
        (["empty"], "run empty has nothing to report yet"),
        (["cut"], "is damaged"),
    ],
)
def test_what_cannot_be_reported_gets_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "no-json", "no-object", "cut"):
        run_folder(Path(name))
    Path("no-json/settings.json").write_text('{"iters": 2')
    Path("no-object/settings.json").write_text("[1]")
    Path("cut/evaluation/evaluation.json").write_text('{"format": "vdvae')
    Path("empty").mkdir()
    Path("empty/settings.json").write_text('{"iters": 2}')
    with pytest.raises(InputError) as raised:
        read_reported(words)
    message = str(raised.value)
    assert sentence in message and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("settings", [{"dec_blocks": "8y1"}, {"enc_blocks": None}, {"image_size": "8"}])
def test_settings_of_no_model_leave_the_hierarchy_unknown(tmp_path: Path, settings: dict[str, object]) -> None:
    (reported,) = read(run_folder(tmp_path / "a", evaluated=False, **settings))
    assert reported.resolutions == ()
