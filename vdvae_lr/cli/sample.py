"""`vdvae-lr sample`: pictures from the prior, as a grid or as single files. It needs no data set."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from vdvae_lr.cli.shared.picture_output import PictureSettings, Studio, counted, make_pictures
from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.latent_model import DecodedImage
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.pictures.sampling import SamplePrecision, sample_batches
from vdvae_lr.setting_checks import Count

_LONGEST_ROW = 16  # pictures, where each temperature has a row


@dataclass(frozen=True, kw_only=True)
class SampleSettings(PictureSettings):
    """Make pictures from the prior: a grid, or with --files any number of single files."""

    COMMAND: ClassVar[str] = "sample"

    count: Count = 64
    """Number of pictures (for each temperature). Picture i is the same for every count."""
    temperature: tuple[str, ...] = ("1.0",)
    """Factor of the prior's scale: 0.9; a number for each group, with commas; or RESOLUTION:TEMPERATURE pairs such as
    16x16:0.8,32x32:0.7 (1 elsewhere). Several, with spaces: rows of the grid for each, from the same noise."""
    image: Literal["auto", "sample", "mean"] = "auto"
    """sample: drawn from p(x|z), as in the published code; mean: the likelihood's mean, which has no noise of single
    pixels; auto: sample for a VDVAE, mean for a VAE of the shallow study, whose noise would cover the image."""
    precision: SamplePrecision = "auto"
    """Number format of the convolutions. auto: bf16 for a VDVAE on a CUDA card that has it, else fp32."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be used (raises InputError)."""
        super().__post_init__()
        if not self.temperature:
            raise InputError("temperature has no value; give one, such as 0.9.")
        if self.files and len(self.temperature) > 1:
            raise InputError(f"{len(self.temperature)} temperatures would be mixed in {self.files}; give one of them.")

    @property
    def columns(self) -> int:
        """Columns of the grid."""
        one_row_each = len(self.temperature) > 1 and self.count <= _LONGEST_ROW
        return self.count if one_row_each else math.ceil(math.sqrt(self.count))


def run(settings: SampleSettings) -> None:
    """Sample (raises InputError if the model, a temperature or a place cannot be used)."""
    make_pictures(settings, partial(_sample, settings))


def _sample(settings: SampleSettings, model: PretrainedModel, studio: Studio) -> None:
    count, batch = settings.count, settings.batch
    factors = [group_temperatures(words, model.resolutions) for words in settings.temperature]
    shown = model.sample_shows if settings.image == "auto" else settings.image
    studio.begin(model, math.ceil(count / settings.columns) * len(factors), settings.columns)
    for words, temperature in zip(settings.temperature, factors, strict=True):
        drawn = sample_batches(model, count, temperature, settings.seed, shown, batch, settings.precision)
        what = f"drawing {counted(count, 'picture')} at temperature {words}"
        for pictures in studio.track(drawn, math.ceil(count / batch), what):
            studio.add(pictures)
    studio.finish(partial(_grid, settings, shown))


def _grid(settings: SampleSettings, shown: DecodedImage, parts: list[Pictures]) -> Image.Image:
    several, starts = len(settings.temperature) > 1, range(0, settings.count, settings.columns)
    blocks = np.split(np.concatenate(parts), len(settings.temperature))
    rows = [block[start : start + settings.columns] for block in blocks for start in starts]
    labels = [
        f"temperature {words}" if several and start == 0 else "" for words in settings.temperature for start in starts
    ]
    kind = "samples" if shown == "sample" else "mean images of samples"
    single = "" if several else f", temperature {settings.temperature[0]}"
    return picture_grid(rows, labels, title=f"{kind}{single}, seed {settings.seed}")
