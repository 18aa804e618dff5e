"""When one of two processes fails, stands still or computes nonsense, the other one knows and says so."""

import json
import time
from pathlib import Path

import pytest
from launching import launch, log_of, measured_lines, train_command
from started_processes import Ended
from training_runs import write_images

FAULTY = Path(__file__).parent / "faulty_train.py"
LONG = {"iters": 100_000, "iters_per_save": 1000, "iters_per_eval": 100_000, "iters_per_print": 1000}
WITHIN_S = 30


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def faulty_run(launcher: str, tmp_path: Path, images: Path, fault: str, **changes: object) -> tuple[Ended, float]:
    """The launcher's end, and how many seconds after the fault it came."""
    mark = tmp_path / "mark"
    train = train_command(images, tmp_path / "out", FAULTY, **LONG | changes)
    (ended,) = launch(launcher, tmp_path / "output", train, FAULT=fault, FAULT_MARK=str(mark))
    assert mark.exists(), f"the fault did not happen: {ended.output}\n{ended.errors}"
    return ended, time.time() - float(mark.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "rank"),
    [
        ("torchrun", 1),
        ("mpiexec", 0),
        pytest.param("torchrun", 0, marks=pytest.mark.faults),
        pytest.param("mpiexec", 1, marks=pytest.mark.faults),
    ],
)
def test_a_failing_process_ends_the_run_with_its_cause(tmp_path: Path, images: Path, launcher: str, rank: int) -> None:
    ended, seconds = faulty_run(launcher, tmp_path, images, f"raise:{rank}:5")
    assert ended.code
    assert ended.errors.count("\nValueError: injected for a test\n") == 1  # the end of its traceback
    assert f"error: process {rank} failed: ValueError: injected for a test; process {1 - rank} ends" in ended.errors
    assert seconds < WITHIN_S


@pytest.mark.slow
def test_a_process_that_stands_still_ends_the_run_and_all_say_where_they_were(tmp_path: Path, images: Path) -> None:
    ended, seconds = faulty_run("torchrun", tmp_path, images, "stand:1:5", stuck_after_s=6.0)
    assert ended.code
    assert "no progress for" in ended.errors
    assert "process 0: step 6, reducing gradients, for" in ended.errors
    assert "process 1: step 5, reducing gradients, for" in ended.errors  # it never came to step 6
    assert seconds < 6 + WITHIN_S


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_process_is_missed(tmp_path: Path, images: Path, rank: int) -> None:
    """Frozen as a machine that swaps, or one whose network is cut: no connection breaks. Process 0 hosts the store."""
    ended, seconds = faulty_run("mpiexec", tmp_path, images, f"freeze:{rank}:5")
    assert ended.code
    assert f"process {rank}" in ended.errors
    assert f"process {1 - rank} ends with it" in ended.errors
    assert seconds < WITHIN_S + 10  # the launcher tries politely first


@pytest.mark.slow
def test_nonsense_of_one_process_is_skipped_by_all(tmp_path: Path, images: Path) -> None:
    """Its update is left out everywhere; each save finds the weights equal on both processes, or the run would end."""
    ended = launch("srun", tmp_path / "output", train_command(images, tmp_path / "nan", FAULTY), FAULT="nan:1:3")
    assert [one.code for one in ended] == [0, 0], "\n".join(one.errors for one in ended)
    skipped = [line["skipped_updates"] for line in log_of(tmp_path / "nan") if line["kind"] == "train"]
    assert skipped == [0, 1, 1]  # after steps 2, 4, 6; both processes count, or there would be 2
    assert all(line["negative_elbo_nats_per_dim"] is not None for line in measured_lines(tmp_path / "nan"))


@pytest.mark.slow
def test_nonsense_for_ever_ends_with_advice(tmp_path: Path, images: Path) -> None:
    train = train_command(images, tmp_path / "out", FAULTY, **LONG | {"max_consecutive_skips": 50})
    ended = launch("srun", tmp_path / "output", train, FAULT="inf:1:0")
    assert all(one.code for one in ended)
    errors = "\n".join(one.errors for one in ended)
    assert "the last 50 updates were skipped" in errors
    assert "--pretrained" in errors
    assert json.loads((tmp_path / "out" / "run" / "settings.json").read_text())["max_consecutive_skips"] == 50
