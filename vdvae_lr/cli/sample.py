"""`vdvae-lr sample`: pictures from the prior, as a grid or as single files; needs no data set."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from vdvae_lr.cli.shared.picture_output import PictureSettings, Studio, counted, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.picture_grid import check_grid_fits, picture_grid
from vdvae_lr.pictures.sampling import sample_batches
from vdvae_lr.setting_checks import Count

_LONGEST_ROW = 16  # pictures, where each temperature has a row


@dataclass(frozen=True, kw_only=True)
class SampleSettings(PictureSettings):
    """Make pictures from the prior: a grid, or with --files any number of single files."""

    COMMAND: ClassVar[str] = "sample"

    count: Count = 64
    """Pictures (of each temperature). Picture i is the same for every count."""
    temperature: tuple[str, ...] = ("1.0",)
    """Multiplies the prior's scale: 0.9; a number for each group, with commas; or RESOLUTION:TEMPERATURE pairs such as
    16x16:0.8,32x32:0.7 (1 elsewhere). Several, with spaces: rows of the grid for each, from the same noise."""
    image: Literal["sample", "mean"] = "sample"
    """sample: drawn from p(x|z), as published; mean: the mixture's mean, without the noise of single pixels."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done; raises InputError."""
        super().__post_init__()
        if not self.temperature:
            raise InputError("temperature has no value; give one, such as 0.9.")
        if self.files and len(self.temperature) > 1:
            raise InputError(f"{len(self.temperature)} temperatures would be mixed in {self.files}; give one of them.")


def run(settings: SampleSettings) -> None:
    """Sample; raises InputError for a model, temperature or place that cannot be used."""
    make_pictures(settings, lambda studio: _sample(settings, studio))


def _sample(settings: SampleSettings, studio: Studio) -> None:
    for words in settings.temperature:
        group_temperatures(words, studio.resolutions)
    across = _columns(settings)
    if studio.writer.wants_grid:
        lines = math.ceil(settings.count / across) * len(settings.temperature)
        check_grid_fits(lines, across, studio.model.config.image_size)
    rows: list[Pictures] = []
    labels: list[str] = []
    for words in settings.temperature:
        pictures = _draw(settings, studio, words)
        block = [pictures[start : start + across] for start in range(0, len(pictures), across)]
        rows += block
        labels += [f"temperature {words}" if len(settings.temperature) > 1 else ""] + [""] * (len(block) - 1)
    if studio.writer.wants_grid:
        single = f", temperature {settings.temperature[0]}" if len(settings.temperature) == 1 else ""
        kind = "samples" if settings.image == "sample" else "mean images of samples"
        studio.writer.grid(picture_grid(rows, labels, title=f"{kind}{single}, seed {settings.seed}"))


def _draw(settings: SampleSettings, studio: Studio, words: str) -> Pictures:
    """The pictures of one temperature, written as they come; returned, (B, H, W, C), only for a grid."""
    batches = sample_batches(
        studio.model,
        settings.count,
        temperature=words,
        seed=settings.seed,
        image=settings.image,
        batch=settings.batch,
    )
    what = f"drawing {counted(settings.count, 'picture')} at temperature {words}"
    kept: list[Pictures] = []
    for pictures in studio.tracker(batches, math.ceil(settings.count / settings.batch), what):
        studio.writer.singles(pictures)
        if studio.writer.wants_grid:
            kept.append(pictures)
    return np.concatenate(kept) if kept else np.empty((0, 0, 0, 0), dtype=np.uint8)


def _columns(settings: SampleSettings) -> int:
    if len(settings.temperature) > 1 and settings.count <= _LONGEST_ROW:
        return settings.count
    return math.ceil(math.sqrt(settings.count))
