"""What commands on several models share: which models, on which held-out images, and how both are found.

Shapes: B images, C channels, H W resolution.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from vdvae_lr.cli.config import model_settings
from vdvae_lr.cli.loaded_models import load_models
from vdvae_lr.cli.measured_data import data_settings, open_split
from vdvae_lr.datasets.catalogue import DataSettings
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.comparison import check_comparable
from vdvae_lr.evaluation.measuring import Measuring, Tracker
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.vdvae import VDVAE


@dataclass(frozen=True)
class ModelsOnImages:
    """Several models and the held-out images that they are measured on."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=RUN_OR_WEIGHTS")]
    """Models, each as NAME=SOURCE: a run's folder, a folder or file of weights, or a bundled or published name."""
    split: Literal["train", "valid", "test"] = "test"
    """Images to measure on."""
    examples: int = 0
    """Measure on the first so many images only; 0: all of them."""
    images: int = 8
    """Images in a picture's row; 0: no pictures."""
    seed: int = 0
    """Of all noise: the same for every model."""
    batch: int = 32
    """Images at once on one process; changes no number."""
    dataset: str = ""
    """Data set to measure on; empty: the one the first model was trained on."""
    data_root: str = ""
    """Folder that holds the data set's files; empty: where a run among the models found them, or data/NAME."""
    num_workers: int = 0
    """Processes that read images ahead."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (published .th files)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute, in float32."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        self.check_at_least(examples=0, images=0, batch=1, num_workers=0)

    def check_at_least(self, **least: int) -> None:
        """Refuse settings that are smaller (raises InputError)."""
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {smallest} or more.")

    def measuring(self, source: ImageSource, world: World, track: Tracker, name: str) -> Measuring:
        """How the model called `name` is measured on `source` (raises InputError where that is empty)."""
        examples = self.examples or len(source)
        return Measuring(source, examples, self.batch, self.seed, world, track, name, self.num_workers)


def named_sources(words: Iterable[str]) -> dict[str, str]:
    """`NAME=SOURCE` words as a mapping, in order.

    Raises:
        InputError: no word, one without NAME= or SOURCE, or a name given twice.
    """
    sources: dict[str, str] = {}
    for word in words:
        name, _, source = word.partition("=")
        if not name or not source:
            raise InputError(f"'{word}' names no model; write NAME=RUN_OR_WEIGHTS, such as before=fashion.")
        if name in sources:
            raise InputError(f"two models are called '{name}'; give each its own name.")
        sources[name] = source
    if not sources:
        raise InputError("there is no model to measure; give at least one as NAME=RUN_OR_WEIGHTS.")
    return sources


def find_models(settings: ModelsOnImages, sources: Mapping[str, str], world: World) -> dict[str, VDVAE]:
    """The models by name, on the world's device; all processes must call this.

    Raises:
        InputError: weights that cannot be used, or models of different architectures.
    """
    models = load_models(sources, model_settings(settings.hps), settings.weights, world)
    check_comparable(models)
    return models


def find_images(settings: ModelsOnImages, models: Mapping[str, VDVAE]) -> tuple[DataSettings, ImageSource]:
    """The data, and the split's images as the models take them (raises InputError for data that cannot be read)."""
    data = data_settings(models, settings.dataset, settings.data_root, settings.num_workers)
    return data, open_split(data, settings.split, next(iter(models.values())).config)


def first_pixels(source: ImageSource, count: int) -> Tensor:
    """The split's first `count` images, or all where it has fewer: (B, C, H, W) uint8."""
    return torch.from_numpy(source.read(range(min(count, len(source))))).permute(0, 3, 1, 2)
