"""Tiny models for 32x32 grey images, saved as folders of weights for the commands."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.weight_folder import write_config, write_weights
from vdvae_lr.model.vdvae.vae import VAEConfig

TINY = VAEConfig(
    image_size=32,
    image_channels=1,
    enc_blocks="32x1,32d4,8x1,8d8,1x1",
    dec_blocks="1x1,8m1,32m8",
    width=8,
    zdim=2,
    num_mixtures=2,
)


def save_tiny(
    folder: Path, change: Callable[[VDVAE], object] = lambda model: None, *, seed: int = 0, **settings: Any
) -> str:
    """Changes a model, saves it as one trained on `fashion_small`, and returns its folder."""
    config = replace(TINY, **settings)
    torch.manual_seed(seed)
    model = VDVAE(config)
    with torch.no_grad():
        change(model)
    folder.mkdir(exist_ok=True)
    write_config(folder, config, "fashion_small")
    write_weights(folder / "model.safetensors", model.state_dict())
    return str(folder)


def shake(model: VDVAE) -> None:
    """Add small random numbers to all weights, so that every path has an effect."""
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
