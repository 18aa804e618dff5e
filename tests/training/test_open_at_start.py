"""A small random opening of the latents at the start of a run from weights, and nowhere else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_vae import PlainConfig, PlainVAE
from refusals import refused
from short_runs import short_run
from torch import Tensor
from training_runs import ALONE, fingerprint, tiny_settings

from vdvae_lr.hub.sources import WeightSettings, find_weights
from vdvae_lr.training.build import StartWeights, build_training, find_start_weights
from vdvae_lr.training.settings import RunSettings, settings_for
from vdvae_lr.training.step import TrainingStep


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("start"))


def started(run: Path, **changes: Any) -> TrainingStep:
    settings = tiny_settings(pretrained=str(run), **changes)
    return build_training(settings, ALONE, find_start_weights(settings))


def named(training: TrainingStep) -> dict[str, Tensor]:
    weights = training.optimiser.weights
    return {name: tensor.clone() for name, tensor in weights.named(weights.values.data).items()}


def test_weights_of_latents_get_noise_of_that_relative_size_and_no_others(run: Path) -> None:
    plain, opened = named(started(run)), named(started(run, open_at_start=0.1))
    channels = tiny_settings().model.zdim
    for name, weight in plain.items():
        moved = opened[name] - weight
        if name.endswith("posterior.expand.weight"):
            assert not moved[channels:].any()
            weight, moved = weight[:channels], moved[:channels]
        elif not name.endswith("latent_projection.weight"):
            assert not moved.any(), name
            continue
        spread = 6 * (2 * moved.numel()) ** -0.5  # six standard errors of a standard deviation
        assert (moved.std() / weight.square().mean().sqrt()).item() == pytest.approx(0.1, rel=spread), name


def test_the_average_stays_what_it_was(run: Path) -> None:
    """So pictures and evaluations from before fine-tuning show the model that it started from."""
    plain, opened = (started(run, open_at_start=size).optimiser.ema.average for size in (0.0, 0.1))
    assert torch.equal(plain, opened)


def test_the_noise_is_the_seeds(run: Path) -> None:
    first, again, other = (fingerprint(started(run, open_at_start=0.1, seed=seed))["state"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_run_that_goes_on_or_starts_from_nothing_is_left_as_it_is() -> None:
    """Neither has weights to start from."""
    plain, opened = (
        build_training(tiny_settings(open_at_start=size), ALONE, StartWeights()).optimiser.weights.values.data
        for size in (0.0, 0.1)
    )
    assert torch.equal(plain, opened)


def test_a_model_that_names_no_such_weights_is_refused(tmp_path: Path) -> None:
    PlainVAE(PlainConfig()).save_pretrained(tmp_path / "plain")
    settings = settings_for(PlainConfig)(
        run=replace(RunSettings(), open_at_start=0.1, pretrained=str(tmp_path / "plain"), device="cpu")
    )
    source = find_weights(str(tmp_path / "plain"), WeightSettings())
    with refused("PlainVAE", "names no weights to open", "leave --open_at_start out"):
        build_training(settings, ALONE, StartWeights(source, source))
