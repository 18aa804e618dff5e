"""A run that is small enough for tests: settings, a training step, images, and what equal runs have in common."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vdvae_lr.cli.shared.config import apply_values
from vdvae_lr.datasets.loader import Batch
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import TrainingStep

ALONE = World(0, 1, torch.device("cpu"))
TINY: dict[str, Any] = {
    "image_size": 8,
    "image_channels": 3,
    "enc_blocks": "8x1,8d2,4x1,4d4,1x1",
    "dec_blocks": "1x1,4m1,8m4",
    "width": 8,
    "custom_width_str": "",
    "zdim": 2,
    "num_mixtures": 2,
    "dataset": "folder",
    "num_workers": 0,
    "pretrained": "none",
    "device": "cpu",
    "n_batch": 2,
    "global_batch": 4,
    "iters": 6,
    "warmup_iters": 2,
    "iters_per_print": 2,
    "iters_per_eval": 3,
    "iters_per_images": 6,
    "iters_per_save": 2,
    "num_images_visualize": 2,
}


def tiny_settings(**changes: Any) -> Settings:
    return apply_values(Settings(), TINY | changes, "test")


def tiny_training(world: World = ALONE, **changes: Any) -> TrainingStep:
    return build_training(tiny_settings(**changes), world, StartWeights(None, None))


def tiny_pixels(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)


def batches_of(pixels: torch.Tensor, n_batch: int, first: int = 0) -> list[Batch]:
    """Cut `pixels` (N, C, H, W) into micro-batches, numbered from `first`."""
    return [
        Batch(part, np.arange(len(part)), first + number, 0, 0) for number, part in enumerate(pixels.split(n_batch))
    ]


def write_images(folder: Path, count: int = 24) -> Path:
    """Write a folder of `count` noisy 8×8 colour images."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(tiny_pixels(count).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def fingerprint(training: TrainingStep) -> dict[str, torch.Tensor]:
    """All that a resumed run must have in common with an unbroken run."""
    optimiser = training.optimiser
    tensors = optimiser.flat_state() | {"update count": optimiser.update_count()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, f"differ: {different}"
