"""Draw the paper's Figures 3 to 5 from runs of the shallow study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from shallow_rows import DATA_SETS, ROWS, Row

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.evaluation_pictures import noise_pictures
from vdvae_lr.pictures.images import Pictures, samples
from vdvae_lr.pictures.picture_grid import picture_grid, save_png

_DRAWS = 3
"""Draws of the noise under which an image is shown."""
_SAMPLES = 16


@dataclass(frozen=True)
class FigureOf:
    """What a figure of the paper shows."""

    table: int
    """The table whose images its models were trained on."""
    presets: tuple[str, ...]
    variances: tuple[float, ...] = ()
    """Of the noise in the latents of one image; none: samples of the prior."""
    example: int = 0
    """Number of that image among the test images."""

    @property
    def rows(self) -> list[Row]:
        """Its rows, in the paper's order."""
        return [row for row in ROWS if row.preset in self.presets]


FIGURES: Mapping[int, FigureOf] = {
    3: FigureOf(2, ("vae", "lidvae", "il_lidvae_0.2", "lrvae_0.8"), (0, 0.2, 0.4, 0.6, 0.8, 1)),
    4: FigureOf(2, ("beta_0.2", "lidvae", "il_lidvae_0.2", "lrvae_1")),
    5: FigureOf(1, ("vae", "il_lidvae_0.2", "lrvae_1"), (0, 0.5, 1, 1.5, 2, 2.5, 3), 2),  # a pair of trousers
}
"""By number. The paper's Figure 5 has no VAE; it shows here what the others change."""


def draw_figure(number: int, runs: Mapping[str, Path], data_root: str, target: Path) -> None:
    """Write a figure as a picture.

    Args:
        number: 3, 4 or 5.
        runs: the models' runs by preset.
        data_root: folder of the data set; empty: data/NAME.
        target: the PNG file.
    """
    figure = FIGURES[number]
    models = {_label(row): PretrainedModel.from_pretrained(runs[row.preset]) for row in figure.rows}
    if not figure.variances:
        drawn = [samples(model, _SAMPLES, seed=0, image="mean")[0] for model in models.values()]
        save_png(picture_grid(drawn, list(models), title="Mean images of samples from the prior"), target)
        return
    config = next(iter(models.values())).config
    settings = DataSettings(dataset=DATA_SETS[figure.table].name, data_root=data_root)
    image = open_splits(settings, config.image_size, config.image_channels).test.read([figure.example])
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).expand(_DRAWS, -1, -1, -1)
    rows: list[Pictures] = []
    labels: list[str] = []
    for title, model in models.items():
        by_variance = noise_pictures(model, pixels, figure.variances, seed=0)
        rows += _by_draw(by_variance)
        labels += [title, *[""] * (_DRAWS - 1)]
    heads = [f"noise {variance:g}" for variance in figure.variances]
    title = "Mean images of one image's latents, with noise of these variances added; each row is one draw"
    save_png(picture_grid(rows, labels, heads, title), target)


def _label(row: Row) -> str:
    """The row's title in letters that the pictures' font has."""
    return row.title.replace("α", "alpha").replace("β", "beta")


def _by_draw(by_variance: Sequence[Pictures]) -> list[Pictures]:
    """Pictures (draws, H, W, C) for each variance → one row (variances, H, W, C) for each draw."""
    return list(np.stack(list(by_variance), axis=1))


def figure_path(number: int, variant: str) -> Path:
    """Where a figure goes; `variant` is the protocol with what was changed."""
    return CHECKOUT_ROOT / "docs" / "figures" / f"shallow_{variant}_figure{number}.png"
