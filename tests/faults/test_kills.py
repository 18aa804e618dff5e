"""Killed at twenty random moments, half of them while a checkpoint is being written, a run ends as an unbroken one."""

import random
from pathlib import Path

import pytest
from launching import final_tensors, launch, log_lines, train_command
from training_runs import assert_same_bits, write_images

FAULTY = Path(__file__).parent / "faulty_train.py"
KILLS = 20
SETTINGS = {
    "iters": 1500,
    "iters_per_print": 50,
    "iters_per_save": 10,
    "iters_per_eval": 250,
    "iters_per_images": 500,
    "iters_per_ckpt": 0,
}
LONGEST_LIFE_MS = 600
FILES_OF_A_CHECKPOINT = 8  # six files, their folder, and the one above it


def random_fault(choices: random.Random, processes: int) -> str:
    rank = choices.randrange(processes)
    if choices.random() < 0.5:
        return f"late:{rank}:{choices.randrange(20, LONGEST_LIFE_MS)}"
    return (
        f"save:0:{choices.randrange(1, 2 * FILES_OF_A_CHECKPOINT)}"  # in the first or second save; only rank 0 writes
    )


@pytest.mark.faults
@pytest.mark.parametrize("launcher", ["alone", "torchrun"])
def test_a_run_killed_at_random_moments_equals_an_unbroken_one(tmp_path: Path, launcher: str) -> None:
    images = write_images(tmp_path / "images")
    (unbroken,) = launch(launcher, tmp_path / "output", train_command(images, tmp_path / "unbroken", **SETTINGS))
    assert unbroken.code == 0, unbroken.errors
    train = train_command(images, tmp_path / "broken", FAULTY, **SETTINGS)
    choices = random.Random(0)
    kills = 0
    while kills < KILLS:
        fault = random_fault(choices, 1 if launcher == "alone" else 2)
        (ended,) = launch(launcher, tmp_path / "output", train, FAULT=fault)
        assert ended.code, f"{fault}: ended well after {kills} kills; make the run longer"
        assert "damaged" not in ended.output + ended.errors, fault
        kills += 1
    (ended,) = launch(launcher, tmp_path / "output", train)
    assert ended.code == 0, ended.errors
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")
    for folder in ("checkpoints", "images"):
        names = [
            sorted(path.name for path in (tmp_path / run / "run" / folder).iterdir()) for run in ("unbroken", "broken")
        ]
        assert names[0] == names[1], "leftovers"
