"""Shared by the tests of `sample`, `reconstruct` and the like: a saved model, image files, and their pixels."""

from pathlib import Path

import numpy as np
from PIL import Image
from small_config import SMALL
from small_published import random_model

from vdvae_lr.cli.main import main
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.weight_folder import write_config, write_weights
from vdvae_lr.model.vdvae.vae import VAEConfig

TILE, GAP = 64, 2  # pixels: size and distance of enlarged 8x8 pictures in a grid


def save_model(folder: Path, config: VAEConfig = SMALL) -> VDVAE:
    """Save in `folder` the model that the commands load, and return it."""
    folder.mkdir()
    write_config(folder, config, "folder")
    write_weights(folder / "model.safetensors", random_model(0, config).state_dict())
    return VDVAE.from_pretrained(folder)


def save_images(folder: Path, count: int, config: VAEConfig = SMALL) -> np.ndarray:
    """Write files 0.png, 1.png, … of random pixels in the model's size; return the pixels (B, H, W, C)."""
    folder.mkdir(exist_ok=True)
    shape = (count, config.image_size, config.image_size, config.image_channels)
    pictures = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.squeeze(-1) if config.image_channels == 1 else picture).save(folder / f"{number}.png")
    return pictures


def done(*words: object) -> None:
    """Run a command line that must succeed."""
    assert main([str(word) for word in words]) == 0


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def tiles_of(path: Path, rows: int, columns: int) -> np.ndarray:
    """The pictures of a grid at their original size: (rows, columns, 8, 8, 3).

    The last row ends at the lower margin. From the left, its first picture is the first square of 64 pixels that
    consists of 8x8 blocks and does not begin with background. No header of these grids is wider than a picture.
    """
    grid = pixels_of(path)
    top = grid.shape[0] - 8 - rows * (TILE + GAP) + GAP
    last = top + (rows - 1) * (TILE + GAP)
    left = next(x for x in range(grid.shape[1]) if _is_a_picture(grid[last : last + TILE, x : x + TILE]))
    found = np.empty((rows, columns, 8, 8, 3), dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            y, x = top + row * (TILE + GAP), left + column * (TILE + GAP)
            tile = grid[y : y + TILE, x : x + TILE]
            found[row, column] = tile[::8, ::8]
            assert (tile == found[row, column].repeat(8, 0).repeat(8, 1)).all()
    return found


def _is_a_picture(square: np.ndarray) -> bool:
    blocks = square[::8, ::8].repeat(8, 0).repeat(8, 1)
    return blocks.shape == square.shape and bool((blocks == square).all()) and bool((square[:, 0] < 255).any())
