"""A small model that replaces a published one: its preset, its entry, and a mirror with its files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from small_config import SMALL

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.vdvae.published import PUBLISHED, PublishedModel
from vdvae_lr.hub.vdvae.tensors import write_published
from vdvae_lr.model.vdvae.vae import VAEConfig

NAME = "small-seed0"


def random_model(seed: int, config: VAEConfig = SMALL) -> VDVAE:
    """A float32 model with random weights everywhere, so that every path has an effect."""
    import torch

    torch.manual_seed(seed)
    model = VDVAE(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def publish(patch: pytest.MonkeyPatch, mirror: Path, config: VAEConfig = SMALL, **facts: Any) -> PublishedModel:
    """Make `small-seed0` the name of a published model with `config`, trained on a folder of images.

    The mirror gets the averaged weights (`random_model(0)`), the weights (`random_model(1)`), and the preset.
    """
    mirror.mkdir(parents=True, exist_ok=True)
    preset = mirror / "small.toml"
    values = dataclasses.asdict(config) | {"dataset": "folder"}
    preset.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    known: dict[str, Any] = {"complete": True, "bound": 5.0, "unit": "bits/dim", "last_digit": 0.001}
    published = PublishedModel(str(preset), "assets/small-iter-7", **known | facts)
    patch.setitem(PUBLISHED, NAME, published)
    for seed, kind in enumerate(("model-ema", "model")):
        model = random_model(seed, config)
        write_published(model, model.state_dict(), mirror / f"small-iter-7-{kind}.th")
    return published
