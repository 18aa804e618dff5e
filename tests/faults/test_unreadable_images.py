"""One of two processes cannot read an image: both go back to the last whole step, save it, and end; then the run goes
on as an unbroken one.
"""

from pathlib import Path
from typing import Any

import pytest
from launching import final_tensors, launch, log_lines, train_command
from training_runs import assert_same_bits, tiny_settings, write_images

from vdvae_lr.datasets.catalogue import open_splits
from vdvae_lr.datasets.sampler import TrainingOrder

FAILED_STEP = 3
SELDOM = {"iters": 12, "iters_per_save": 100, "iters_per_eval": 100, "iters_per_images": 100}


def image_of(images: Path, rank: int) -> Path:
    """An image that this process is the first to read, in the failed step."""
    settings = tiny_settings(data_root=str(images))
    source = open_splits(settings.data, 8, 3).train
    order = TrainingOrder(len(source), settings.run.global_batch, settings.run.n_batch, rank, 2, settings.run.seed)
    ((_, rows),) = order.micro_batches(FAILED_STEP)
    return Path(source.describe(int(rows[0])))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("launcher", "rank", "print_every"),
    [("torchrun", 1, 4), ("mpiexec", 0, 100)],  # the processes meet before the line of step 4, or after step 10
)
def test_what_one_process_cannot_read_costs_no_whole_step(
    tmp_path: Path, launcher: str, rank: int, print_every: int
) -> None:
    images = write_images(tmp_path / "images")
    bad = image_of(images, rank)
    bad.write_text("no image")
    changes: dict[str, Any] = SELDOM | {"iters_per_print": print_every}

    def started(name: str, policy: str) -> Any:
        command = train_command(images, tmp_path / name, bad_images=policy, **changes)
        (ended,) = launch(launcher, tmp_path / f"{name}-{policy}-output", command)
        return ended

    assert started("unbroken", "skip").code == 0
    ended = started("broken", "stop")
    assert ended.code
    assert ended.errors.count(f"error: {bad} cannot be read as an image") == 1
    assert f"the run is saved after step {FAILED_STEP}, and goes on from there" in ended.errors
    assert f"process {rank} failed: {bad} cannot be read" in ended.errors
    checkpoints = [path.name for path in (tmp_path / "broken" / "run" / "checkpoints").iterdir()]
    assert checkpoints == [f"step-{FAILED_STEP:08d}"]
    ended = started("broken", "skip")
    assert ended.code == 0, ended.errors
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")
