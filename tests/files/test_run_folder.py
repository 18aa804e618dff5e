"""A run's folder as everyone reads it: its checkpoints in order, and the records of its log that are whole."""

import json
from pathlib import Path
from typing import Any

import pytest

from vdvae_lr.errors import InputError
from vdvae_lr.files.run_folder import complete_checkpoints, newest_checkpoint, read_log


def record(iteration: Any, kind: Any = "train") -> dict[str, Any]:
    return {"kind": kind, "iteration": iteration}


def test_the_newest_checkpoint_has_the_most_iterations(tmp_path: Path) -> None:
    for number in (99_999, 100_000, 25):
        (tmp_path / "checkpoints" / f"step-{number:08d}").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step-00200000.part").mkdir()
    assert newest_checkpoint(tmp_path).name == "step-00100000"


def test_a_run_that_saved_nothing_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=rf"^run {tmp_path} has no checkpoint yet; .*\.$"):
        newest_checkpoint(tmp_path)


def test_checkpoints_are_in_the_order_of_their_numbers_also_beyond_eight_digits(tmp_path: Path) -> None:
    for number in (100_000_000, 99_999_999, 5):
        (tmp_path / f"step-{number:08d}").mkdir()
    names = [path.name for path in complete_checkpoints(tmp_path)]
    assert names == ["step-00000005", "step-99999999", "step-100000000"]


def test_a_run_without_a_log_has_no_records(tmp_path: Path) -> None:
    assert read_log(tmp_path) == ([], 0)


def test_an_unfinished_last_line_is_left_out_and_not_counted(tmp_path: Path) -> None:
    whole = json.dumps(record(1))
    (tmp_path / "log.jsonl").write_text(f"{whole}\n{whole[:9]}")
    assert read_log(tmp_path) == ([record(1)], 0)


@pytest.mark.parametrize(
    "damage",
    [
        '{"kind": "train", "iterat', "", "7", "[1]", "null", "{}", "\ufffd", "[" * 100_000,
        *(json.dumps(record(iteration)) for iteration in (-1, 2**53, 1.0, True, "1", None)),
        *(json.dumps(record(1, kind)) for kind in (None, 3)),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path, damage: str) -> None:
    lines = [json.dumps(record(1)), damage, json.dumps(record(2**53 - 1, "eval"))]
    (tmp_path / "log.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert read_log(tmp_path) == ([record(1), record(2**53 - 1, "eval")], 1)
