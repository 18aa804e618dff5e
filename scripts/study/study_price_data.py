"""The small images of the study: averages of Fashion-MNIST and of photographs, as folders of PNG files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.errors import InputError

DATA = ("fashion8", "fashion16", "photos8", "photos16")
"""Names of the data sets, with the size of their images."""

# Neighbouring photographs are crops of one picture, so parts drawn at random would share pictures.
_PHOTOS = {"train": slice(0, 7700), "valid": slice(7700, 8200), "test": slice(8200, 9200)}
_SIDE = 32


def prepare(fashion: Path | None, photos: Path | None, work: Path) -> None:
    """Write the images of what is given, each average once, into `work`/NAME.

    Raises:
        InputError: neither is given, or one cannot be read.
    """
    if fashion is None and photos is None:
        raise InputError("give --fashion FOLDER, --photos ARCHIVE.npz, or both.")
    if fashion is not None:
        splits = open_splits(DataSettings(dataset="fashion", data_root=str(fashion)), _SIDE, 1)
        parts = {name: getattr(splits, name) for name in _PHOTOS}
        pixels = {name: source.read(np.arange(len(source))) for name, source in parts.items()}
        _write_averages("fashion", pixels, work)
    if photos is not None:
        with np.load(photos) as arrays:
            every = arrays["train"]
        _write_averages("photos", {name: every[part] for name, part in _PHOTOS.items()}, work)


def _write_averages(kind: str, parts: Mapping[str, np.ndarray], work: Path) -> None:
    """Parts of images (N, 32, 32, C) uint8, averaged down to each size that the study uses of them."""
    for name in DATA:
        if not name.startswith(kind):
            continue
        side = int(name.removeprefix(kind))
        cell = _SIDE // side
        for part, pixels in parts.items():
            folder = work / name / part
            folder.mkdir(parents=True, exist_ok=True)
            means = pixels.reshape(len(pixels), side, cell, side, cell, -1).mean(axis=(2, 4))
            for index, image in enumerate(means.round().astype(np.uint8)):
                Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(folder / f"{index:05d}.png")
        print(f"{work / name}", flush=True)
