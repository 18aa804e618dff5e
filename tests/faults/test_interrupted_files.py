"""A full disk, a run in use, images and readers that go in the middle of a run: named, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import CHECKOUT, final_tensors, launch, log_lines, log_of, measured_lines, train_command
from started_processes import Start
from training_runs import assert_same_bits, write_images

from vdvae_lr.errors import EXIT_RUN_AGAIN

FAULTY = Path(__file__).parent / "faulty_train.py"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@contextmanager
def standing_run(tmp_path: Path, images: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of one process that stands still in its sixth step."""
    mark = tmp_path / "mark"
    command = [sys.executable, *train_command(images, tmp_path / "out", FAULTY)]
    start = Start(command, {"FAULT": "stand:0:5", "FAULT_MARK": str(mark), "PYTHONPATH": str(CHECKOUT)})
    process = subprocess.Popen(
        command, env=start.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        while not mark.exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path, images: Path) -> None:
    assert launch("alone", tmp_path / "a", train_command(images, tmp_path / "unbroken"))[0].code == 0
    train = train_command(images, tmp_path / "out", FAULTY)
    (ended,) = launch("alone", tmp_path / "b", train, FAULT="full:0:3")
    assert ended.code == 2
    assert "could not be written" in ended.errors
    assert "run the same command again to go on" in ended.errors
    assert "Traceback" not in ended.errors
    left = {path.name for path in (tmp_path / "out" / "run" / "checkpoints").iterdir()}
    assert {"step-00000002"} <= left <= {"step-00000002", "step-00000003"}  # the later was, or was being, written
    (ended,) = launch("alone", tmp_path / "c", train)
    assert (ended.code, "Going on from" in ended.output) == (0, True), ended.errors
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "out"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.faults)])
def test_a_folder_in_use_is_refused_until_its_run_has_ended(tmp_path: Path, images: Path, fresh: bool) -> None:
    train = train_command(images, tmp_path / "out", fresh=fresh)
    with standing_run(tmp_path, images) as first:
        (second,) = launch("alone", tmp_path / "a", train)
        assert second.code == 2
        assert f"is in use by another run (process {first.pid} on " in second.errors
    (third,) = launch("alone", tmp_path / "b", train)  # the first was killed: nothing is left of its lock
    assert third.code == 0, third.errors


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(tmp_path: Path, images: Path) -> None:
    with standing_run(tmp_path, images) as process:
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.slow
def test_an_error_amid_reading_ends_the_run(tmp_path: Path, images: Path) -> None:
    """One that nobody expects: its traceback is shown, and no reader keeps the process."""
    train = train_command(images, tmp_path / "out", FAULTY, num_workers=1)
    (ended,) = launch("alone", tmp_path / "a", train, FAULT="raise:0:3")
    assert ended.code == 1
    assert "injected for a test" in ended.errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.faults)])
def test_a_signal_to_the_whole_group_stops_no_reader(tmp_path: Path, images: Path, number: signal.Signals) -> None:
    """As SLURM and torchrun send it: every process of the job gets it, and the run saves and asks for a requeue."""
    mark = tmp_path / "mark"
    settings = {"num_workers": 1, "iters": 5000, "iters_per_eval": 5000, "iters_per_images": 5000}
    command = [sys.executable, *train_command(images, tmp_path / "out", FAULTY, **settings)]
    start = Start(command, {"FAULT": "note:0:5", "FAULT_MARK": str(mark), "PYTHONPATH": str(CHECKOUT)})
    process = subprocess.Popen(
        command,
        env=start.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        while not mark.exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == EXIT_RUN_AGAIN, output
    assert f"Stopped by {number.name} after step" in output


@pytest.mark.slow
def test_images_that_become_unreadable_are_named_or_replaced_and_counted(tmp_path: Path) -> None:
    for policy in ("stop", "skip"):
        images = write_images(tmp_path / policy / "images")
        train = train_command(images, tmp_path / policy / "out", FAULTY, bad_images=policy)
        (ended,) = launch("alone", tmp_path / policy / "output", train, FAULT="spoil:0:3")
        if policy == "stop":
            assert ended.code == 2
            assert "Traceback" not in ended.errors
            assert str(images) in ended.errors
            assert "--bad_images skip" in ended.errors
        else:
            assert ended.code == 0, ended.errors
            counts = [line["bad_images"] for line in log_of(tmp_path / policy / "out") if line["kind"] == "train"]
            assert counts[0] == 0 < counts[-1]


@pytest.mark.slow
def test_a_killed_reader_is_named(tmp_path: Path, images: Path) -> None:
    train = train_command(images, tmp_path / "out", FAULTY, num_workers=1, iters=2000, iters_per_eval=2000)
    (ended,) = launch("alone", tmp_path / "output", train, FAULT="reader:0:5")
    assert ended.code == 2
    assert "a process that reads images died" in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.slow
def test_another_number_of_processes_goes_on_and_says_what_that_means(tmp_path: Path, images: Path) -> None:
    """Stopped on two processes and continued on one: the same images and noise, so the same numbers to rounding."""
    assert launch("alone", tmp_path / "a", train_command(images, tmp_path / "unbroken"))[0].code == 0
    train = train_command(images, tmp_path / "out", FAULTY)
    assert all(one.code for one in launch("srun", tmp_path / "b", train, FAULT="kill:1:5"))
    (ended,) = launch("alone", tmp_path / "c", train)
    assert ended.code == 0, ended.errors
    assert "It was saved by 2 process(es) and goes on with 1" in " ".join(ended.output.split())
    for line, other in zip(measured_lines(tmp_path / "unbroken"), measured_lines(tmp_path / "out"), strict=True):
        assert line["negative_elbo_nats_per_dim"] == pytest.approx(other["negative_elbo_nats_per_dim"], rel=1e-4)
