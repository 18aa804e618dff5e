"""Real runs of two processes, by every launcher, compute what one process computes, and end together."""

from pathlib import Path

import pytest
import torch
from launching import LAUNCHERS, launch, measured_lines, train_command
from training_runs import write_images


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and in it the run of one process on them."""
    folder = tmp_path_factory.mktemp("launchers")
    train = train_command(write_images(folder / "images"), folder / "one")
    (ended,) = launch("alone", folder / "output", train)
    assert ended.code == 0, ended.errors
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_compute_what_one_does(tmp_path: Path, alone: Path, launcher: str) -> None:
    """Two processes of one micro-batch against one of two: same images, same noise, same log to float32's rounding."""
    ended = launch(launcher, tmp_path / "output", train_command(alone / "images", tmp_path / "two"))
    assert [one.code for one in ended] == [0] * len(ended), "\n".join(one.errors for one in ended)
    assert sum(one.output.count("Finished") for one in ended) == 1
    for single, joint in zip(measured_lines(alone / "one"), measured_lines(tmp_path / "two"), strict=True):
        assert single.keys() == joint.keys()
        for name, value in single.items():
            if isinstance(value, float):
                torch.testing.assert_close(joint[name], value, rtol=1e-4, atol=1e-6, msg=name, equal_nan=True)
            elif not isinstance(value, list):
                assert joint[name] == value, name


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failure_of_the_main_process_ends_them_all(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "taken").write_text("mine")
    train = train_command(write_images(tmp_path / "images"), tmp_path / "taken")
    ended = launch(launcher, tmp_path / "output", train)
    assert all(one.code for one in ended), [one.code for one in ended]  # None were one that still waits
    errors = "\n".join(one.errors for one in ended)
    assert "choose another --save_dir" in errors
    assert 'train.py", line' not in errors  # no process ends with a traceback


AFTER_THE_GROUP = """
from pathlib import Path
from vdvae_lr.processes.world import joined_world

with joined_world("cpu") as world:
    import torch._dynamo  # as a compiled run does, when the group exists
    world.highest(1)
print([thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")])
"""


def test_no_thread_outlives_the_group(tmp_path: Path) -> None:
    """A thread of gloo that frees a tensor while Python ends would abort the process."""
    ended = launch("srun", tmp_path / "output", ["-c", AFTER_THE_GROUP])
    assert [one.code for one in ended] == [0, 0], "\n".join(one.errors for one in ended)
    assert not any("gloo" in one.output for one in ended), ended[0].output
