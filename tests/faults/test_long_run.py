"""Twenty thousand steps leave memory, open files and threads where they were, and a log bounded by its interval."""

import json
from pathlib import Path

import pytest
from launching import launch, measured_lines, train_command
from training_runs import write_images

FAULTY = Path(__file__).parent / "faulty_train.py"
STEPS = 20_000
SETTINGS = {
    "enc_blocks": "8x1,8d8,1x1",
    "dec_blocks": "1x1,8m1",
    "width": 4,
    "n_batch": 4,
    "iters": STEPS,
    "iters_per_print": 100,
    "iters_per_save": 100,
    "iters_per_eval": 1000,
    "iters_per_images": 5000,
    "iters_per_ckpt": 0,
}


@pytest.mark.faults
def test_a_long_run_grows_nowhere(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    train = train_command(write_images(tmp_path / "images"), tmp_path / "out", FAULTY, **SETTINGS)
    (ended,) = launch("alone", tmp_path / "output", train, 3600.0, FAULT="count:0:500", COUNT_FILE=str(counts))
    assert ended.code == 0, ended.errors
    records = [json.loads(line) for line in counts.read_text().splitlines()]
    half, last = records[len(records) // 2], records[-1]
    print(f"at half: {half}; at the end: {last}")
    assert last["memory_kb"] < 1.01 * half["memory_kb"]
    assert last["files"] <= half["files"]
    assert last["threads"] <= half["threads"]
    assert len(measured_lines(tmp_path / "out")) == STEPS // 100 + STEPS // 1000
    assert len(ended.output.splitlines()) < STEPS // 100 + STEPS // 1000 + 10
