"""Small VAEs of the shallow study in training: settings, a step, and runs that are broken off."""

from pathlib import Path
from typing import Any

import pytest
from training_runs import ALONE

from vdvae_lr.cli.shared.config import apply_values
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.processes.world import World
from vdvae_lr.training import loop
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.settings import Settings, settings_for
from vdvae_lr.training.step import TrainingStep

SHALLOW: dict[str, Any] = {
    "image_size": 8,
    "image_channels": 3,
    "latents": 3,
    "encoder_channels": "4,6",
    "likelihood": "optimal",
    "dataset": "folder",
    "num_workers": 0,
    "device": "cpu",
    "n_batch": 4,
    "global_batch": 8,
    "iters": 6,
    "lr": 0.01,
    "warmup_iters": 0,
    "ema_rate": 0.5,
    "alpha_T": 0.5,
    "iters_per_print": 2,
    "iters_per_save": 3,
    "num_images_visualize": 2,
}


def settings(**changes: Any) -> Settings:
    return apply_values(settings_for(ShallowConfig)(), SHALLOW | changes, "test")


def training(world: World = ALONE, **changes: Any) -> TrainingStep:
    return build_training(settings(**changes), world, StartWeights())


def run(folder: Path, images: Path, **changes: Any) -> Path:
    """The folder of a run that has ended."""
    places = {"data_root": str(images), "save_dir": str(folder), "desc": "run"}
    assert loop.train(settings(**places, **changes), ALONE) == 0
    return folder / "run"


def broken_run(folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Path:
    """The folder of a run that was broken off after its first checkpoint, and then went on to its end."""
    save = loop._save

    def save_and_stop(run: loop.Run) -> None:
        save(run)
        run.saver.wait()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "_save", save_and_stop)
        run(folder, images, **changes)
    return run(folder, images, **changes)
