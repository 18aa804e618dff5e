"""What a run's folder says of one of its checkpoints: nothing of later iterations, and nothing that is not there."""

import json
from pathlib import Path

import pytest
from short_runs import LAST, change_settings, checkpoint_of, copied, records_of, short_run, write_log

from vdvae_lr.hub.run_record import Start, read_run_record, start_of_run

EARLIER = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return copied(trained, tmp_path)


def bound(kind: str, iteration: int, nats: float | None = 1.0) -> dict[str, object]:
    return {"kind": kind, "iteration": iteration, "negative_elbo_nats_per_dim": nats}


def test_a_finished_run_tells_all(run: Path) -> None:
    record = read_run_record(checkpoint_of(run))
    assert record is not None
    assert (record.name, record.iteration, record.split) == ("run", LAST, "validation")
    assert record.settings == json.loads((run / "settings.json").read_text())
    assert record.bound == records_of(run, "eval")[-1]
    assert record.picture == run / "images" / f"step-{LAST:08d}.png"


def test_an_earlier_checkpoint_has_what_was_known_then(run: Path) -> None:
    record = read_run_record(checkpoint_of(run, EARLIER))
    assert record is not None
    assert record.iteration == EARLIER
    assert record.bound == records_of(run, "eval")[0]
    assert record.picture == run / "images" / f"step-{EARLIER:08d}.png"


def test_a_run_without_bound_or_picture_claims_none(run: Path) -> None:
    write_log(run, records_of(run, "train"))
    for picture in (run / "images").iterdir():
        picture.unlink()
    record = read_run_record(checkpoint_of(run))
    assert record is not None
    assert (record.split, dict(record.bound), record.picture) == ("", {}, None)
    (run / "log.jsonl").unlink()
    assert read_run_record(checkpoint_of(run)) == record


@pytest.mark.parametrize(
    ("kinds", "split", "iteration"),
    [
        pytest.param([("eval", 3), ("eval", 6), ("test", 6)], "test", 6, id="measured on both, the test split counts"),
        pytest.param([("eval", 3), ("test", 3), ("eval", 6)], "validation", 6, id="of other weights, it does not"),
        pytest.param([("test", 0), ("eval", 6)], "validation", 6, id="nor of those the run started from"),
        pytest.param([("eval", 3), ("train", 6), ("eval", 9)], "validation", 3, id="nothing of later weights"),
    ],
)
def test_the_bound_is_the_last_one(run: Path, kinds: list[tuple[str, int]], split: str, iteration: int) -> None:
    write_log(run, [bound(kind, number) for kind, number in kinds])
    record = read_run_record(checkpoint_of(run))
    assert record is not None
    assert (record.split, record.bound["iteration"]) == (split, iteration)


def test_lines_that_say_nothing_are_passed_over(run: Path) -> None:
    good = json.dumps(bound("eval", 3))
    (run / "log.jsonl").write_bytes(f'{good}\n[1]\n"eval"\n{{"kind": "eval"}}\n\xff\n{good[:30]}'.encode("latin-1"))
    record = read_run_record(checkpoint_of(run))
    assert record is not None
    assert record.bound == bound("eval", 3)


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", "7"])
def test_settings_that_cannot_be_read_make_no_run(run: Path, damage: str) -> None:
    (run / "settings.json").write_text(damage)
    assert read_run_record(checkpoint_of(run)) is None


def test_a_folder_of_weights_is_no_run(tmp_path: Path, run: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert read_run_record(tmp_path / "a" / "b") is None
    assert read_run_record(run / "images" / "step-00000006.png") is None
    assert read_run_record(tmp_path / "absent" / "there" / "step-00000001") is None


def test_the_name_is_the_folders_from_wherever_one_looks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_settings(run, desc="called otherwise")
    monkeypatch.chdir(run)
    record = read_run_record(Path("checkpoints") / f"step-{LAST:08d}")
    assert record is not None
    assert record.name == "run"


@pytest.mark.parametrize(
    ("settings", "values", "average"),
    [
        ({}, Start("", True), Start("", True)),
        ({"pretrained": "none", "restore_path": "", "restore_ema_path": None}, Start("", True), Start("", True)),
        ({"pretrained": "fashion"}, Start("fashion", True), Start("fashion", True)),
        ({"restore_path": "a", "pretrained": "fashion"}, Start("a", False), Start("a", False)),
        ({"restore_ema_path": "b", "pretrained": "fashion"}, Start("b", True), Start("b", True)),
        ({"restore_ema_path": "b", "restore_path": "a"}, Start("a", False), Start("b", True)),
    ],
    ids=range(6),
)
def test_restored_weights_win_over_pretrained_ones_and_one_file_serves_for_both(
    settings: dict[str, object], values: Start, average: Start
) -> None:
    assert start_of_run(settings) == (values, average)
