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
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.hub.sound_weights import check_finite
from vdvae_lr.hub.sources import WeightSettings, checksum
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
    """Folder that holds the data set's files; empty: data/NAME."""
    num_workers: int = 0
    """Processes that read images ahead."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (published .th files)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        self.check_at_least(examples=0, images=0, batch=1, num_workers=0)

    def check_at_least(self, **least: int) -> None:
        """Refuse settings that are smaller (raises InputError)."""
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {smallest} or more.")


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


def load_models(settings: ModelsOnImages, sources: Mapping[str, str], world: World) -> dict[str, VDVAE]:
    """The models by name, on the world's device.

    Args:
        settings: presets and where names are looked up.
        sources: of the weights, by name.
        world: all of its processes must call this.

    Raises:
        InputError: weights that are not there, that processes find different, or that hold NaN.
    """
    config = model_settings(settings.hps)

    def load() -> dict[str, VDVAE]:
        return {
            name: VDVAE.from_pretrained(source, config=config, sources=settings.weights)
            for name, source in sources.items()
        }

    models = world.patiently(load, "loading weights")
    for name, model in models.items():
        if not world.agree(checksum(model.state_dict())):
            raise InputError(f"the processes found different weights for '{name}'; give one --revision, or one folder.")
        check_finite(model, name)
        model.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return models


def data_settings(settings: ModelsOnImages, models: Mapping[str, VDVAE]) -> DataSettings:
    """Which data to measure on: those named, or those of the first model.

    Raises:
        InputError: neither is known.
    """
    dataset = settings.dataset or next(iter(models.values())).dataset
    if not dataset:
        raise InputError(
            f"model '{next(iter(models))}' does not say what data it was trained on; name a data set with --dataset."
        )
    return DataSettings(dataset=dataset, data_root=settings.data_root, num_workers=settings.num_workers)


def open_split(settings: ModelsOnImages, data: DataSettings, models: Mapping[str, VDVAE]) -> ImageSource:
    """The split's images as the models take them (raises InputError for data that cannot be read)."""
    config = next(iter(models.values())).config
    source: ImageSource = getattr(open_splits(data, config.image_size, config.image_channels), settings.split)
    return source


def first_pixels(source: ImageSource, count: int) -> Tensor:
    """The split's first `count` images, or all where it has fewer: (B, C, H, W) uint8."""
    return torch.from_numpy(source.read(range(min(count, len(source))))).permute(0, 3, 1, 2)
