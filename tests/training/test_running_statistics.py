"""Models with batch normalisation: running statistics are part of the weights, their average, and what goes on."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from shallow_runs import broken_run, run, training
from training_runs import assert_same_bits, fingerprint, tiny_pixels, write_images

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.hub.pretrained import PretrainedModel, ShallowVAE
from vdvae_lr.hub.weight_folder import stored_tensors
from vdvae_lr.model.shallow.vae import ShallowConfig, ShallowModel
from vdvae_lr.training.step import TrainingStep
from vdvae_lr.training.weights import FlatWeights


def batches(n_batch: int, count: int = 8) -> list[Batch]:
    parts = tiny_pixels(count).split(n_batch)
    return [Batch(pixels, torch.arange(len(pixels)).numpy(), number, 0, 0) for number, pixels in enumerate(parts)]


def statistics(step: TrainingStep) -> dict[str, torch.Tensor]:
    named = step.optimiser.weights.named(step.optimiser.weights.state)
    return {name: tensor.clone() for name, tensor in named.items() if "running" in name or name == "pixel_variance"}


def test_a_step_moves_them_by_the_mean_change_of_its_micro_batches() -> None:
    step = training()
    before = statistics(step)
    assert {"pixel_variance", "encoder.0.first_norm.running_mean"} <= before.keys()
    changes = []
    for batch in batches(4):
        alone = training(global_batch=4)
        alone(0, 0.1, [batch])
        changes.append({name: tensor - before[name] for name, tensor in statistics(alone).items()})
    step(0, 0.1, batches(4))
    for name, tensor in statistics(step).items():
        assert changes[0][name].abs().max() > 0
        torch.testing.assert_close(tensor, before[name] + (changes[0][name] + changes[1][name]) / 2)


def test_a_skipped_step_leaves_them() -> None:
    step = training(skip_threshold=1e-9)
    before = fingerprint(step)
    step(0, 0.1, batches(4))
    assert step.optimiser.skipped == 1
    assert torch.equal(fingerprint(step)["state"], before["state"])


def test_they_do_not_count_as_gradient() -> None:
    step = training()
    step(0, 0.1, batches(4))
    gradients = step.optimiser.weights.gradients
    assert len(gradients) == len(step.optimiser.weights.values) < len(step.optimiser.weights.state)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", 40)


def test_a_run_that_goes_on_is_equal_bit_for_bit(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole", images)
    broken = broken_run(tmp_path / "broken", images, monkeypatch)
    found = [ShallowVAE.from_pretrained(folder, ema=ema) for folder in (whole, broken) for ema in (True, False)]
    states = [stored_tensors(model) for model in found]
    assert_same_bits(states[0], states[2])
    assert_same_bits(states[1], states[3])
    assert not torch.equal(states[0]["pixel_variance"], states[1]["pixel_variance"])  # the average lags behind


def test_weights_that_were_saved_again_evaluate_the_same(tmp_path: Path, images: Path) -> None:
    model = ShallowVAE.from_pretrained(run(tmp_path, images))
    assert not model.training
    model.save_pretrained(tmp_path / "saved")
    again = ShallowVAE.from_pretrained(tmp_path / "saved")
    levels = tiny_pixels(4).float()
    assert torch.equal(model.encode(levels).mean, again.encode(levels).mean)
    assert_same_bits(stored_tensors(model), stored_tensors(again))


@dataclass(frozen=True)
class OddConfig(ShallowConfig):
    """A class of settings of its own."""


class OddVAE(ShallowModel, PretrainedModel, config=OddConfig):
    """Buffers of every kind, and a layer that is there twice."""

    def __init__(self, config: OddConfig) -> None:
        super().__init__(config)
        self.again = self.encoder[-1]
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("part", torch.arange(12.0).view(3, 4)[:, :2])
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("exact", torch.ones(2, dtype=torch.float64))
        self.register_buffer("ready", torch.tensor(False))


def test_buffers_of_every_kind_train_and_return(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = OddVAE(OddConfig(8, 3, 2, "4"))
    kept = {name: getattr(model, name).clone() for name in ("mask", "part", "empty", "exact", "ready")}
    weights = FlatWeights(model)
    with weights.collecting_statistics(1.0):
        model.encoder(tiny_pixels(4).float())
    assert weights.statistics_change.isfinite().all()
    assert weights.statistics_change.abs().max() > 0
    model.save_pretrained(tmp_path)
    again = OddVAE.from_pretrained(tmp_path)
    assert_same_bits(stored_tensors(model), stored_tensors(again))
    for name, value in kept.items():
        assert torch.equal(getattr(model, name), value) and torch.equal(getattr(again, name), value)
