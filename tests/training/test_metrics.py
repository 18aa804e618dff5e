"""What a run says about itself."""

import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import batches_of, tiny_pixels, tiny_training

from vdvae_lr.files.run_folder import LOG_NAME
from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.training.console import Speedometer
from vdvae_lr.training.metrics import RunLog, console_line, read_line
from vdvae_lr.training.trackers import TrackedRun, Trackers


def test_a_line_is_the_mean_of_its_steps_and_starts_the_sums_anew() -> None:
    training = tiny_training(lr=0.0, wd=0.0)
    singles = []
    for iteration in range(2):
        training(iteration, 0.5, batches_of(tiny_pixels(4), 2))
        singles.append(read_line(training, 0.5, 0))
    again = tiny_training(lr=0.0, wd=0.0)
    for iteration in range(2):
        again(iteration, 0.5, batches_of(tiny_pixels(4), 2))
    both = read_line(again, 0.5, 0)
    elbo = both["negative_elbo_nats_per_dim"]
    assert elbo == pytest.approx(sum(line["negative_elbo_nats_per_dim"] for line in singles) / 2)
    assert elbo == pytest.approx(both["rate_nats_per_dim"] + both["distortion_nats_per_dim"], rel=1e-5)
    assert float(again.sums.abs().sum()) == 0


def test_no_finite_step_is_said_as_nan() -> None:
    training = tiny_training()
    with torch.no_grad():
        training.optimiser.weights.values.fill_(float("nan"))
    training(0, 0.5, batches_of(tiny_pixels(4), 2))
    line = read_line(training, 0.5, 0)
    assert math.isnan(line["negative_elbo_nats_per_dim"])
    assert line["skipped_updates"] == 1


def test_console_line_names_every_number() -> None:
    training = tiny_training()
    training(0, 0.5, batches_of(tiny_pixels(4), 2))
    text = console_line(1, read_line(training, 0.5, 2), 10, Speedometer(10, 4))
    for part in (
        "step  1/10",
        "left ",
        "images/s",
        "-ELBO",
        "rate",
        "distortion",
        "LR",
        "α 0.500",
        "grad",
        "skipped 0",
    ):
        assert part in text
    assert "bad images 2" in text


def test_log_drops_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    records = [{"kind": "train", "iteration": iteration, "rate": 1e-05} for iteration in (1, 2, 3)]
    (tmp_path / LOG_NAME).write_text("".join(json.dumps(record) + "\n" for record in records) + '{"iterat')
    log = RunLog(tmp_path, resume_at=2)
    log.write("train", 3, {"rate": 0.5})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert lines == [*records[:2], {"kind": "train", "iteration": 3, "rate": 0.5}]


def test_what_is_not_finite_is_null_and_no_curve(tmp_path: Path) -> None:
    shown = Trackers("tensorboard", TrackedRun(tmp_path, "project", "run", {}, 0), print)
    log = RunLog(tmp_path, 0, shown)
    log.write(
        "eval", 1, {"rate": float("inf"), "group_rates": [0.5, float("nan")], "share": None}, {"c/0": float("nan")}
    )
    log.close()
    shown.close(failed=False)
    text = (tmp_path / LOG_NAME).read_text()
    assert json.loads(text) == {"kind": "eval", "iteration": 1, "rate": None, "group_rates": [0.5, None], "share": None}
    assert "NaN" not in text
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert EventAccumulator(str(path)).Reload().Tags()["scalars"] == []


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    log = RunLog(None, 0)
    log.write("train", 1, {"rate": 0.5})
    log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("iteration", "length", "expected"), [(0, 0, 0.0), (50, 0, 1.0), (100, 0, 2.0), (25, 50, 1.0), (80, 50, 2.0)]
)
def test_alpha_schedule(iteration: int, length: int, expected: float) -> None:
    assert ObjectiveSettings(alpha_T=2.0, alpha_warmup_iters=length).alpha_at(iteration, 100) == pytest.approx(expected)
