"""What commands that measure models share: the held-out images, how they are found, how a model is measured on them.

Shapes: B images, C channels, H W resolution.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from torch import Tensor

from vdvae_lr.cli.shared.loaded_models import run_settings
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.inventory import Inventory, inventory_lines, take_inventory
from vdvae_lr.datasets.loader import check_readers
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.measuring import Measuring, Tracker
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.processes.world import World
from vdvae_lr.setting_checks import AtOnce, Between, CountOrNone, PathText, check_settings


@dataclass(frozen=True)
class FoundImages:
    """The images of a split, as the models take them, and what else the data set holds."""

    dataset: str
    source: ImageSource
    inventory: Inventory


@dataclass(frozen=True, kw_only=True)
class HeldOutImages:
    """Images to measure models on, and what else every such command wants to know."""

    split: Literal["train", "valid", "test"] = "test"
    """Images to measure on."""
    examples: CountOrNone = 0
    """Measure on the first so many images only; 0: all of them."""
    images: Annotated[int, Between(0, 65_536)] = 8
    """Images in a picture's row; 0: no pictures."""
    seed: int = 0
    """Of all noise: the same for every model."""
    batch: AtOnce = 32
    """Images at once on one process; changes no number."""
    dataset: str = ""
    """Data set to measure on; empty: the one the first model was trained on."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty: where a run among the models found them, or data/NAME."""
    bad_images: Literal["", "stop", "skip"] = ""
    """What to do about a file that is no readable image: stop and name it, or skip it (another one stands in); empty:
    as a run among the models did, else stop."""
    num_workers: CountOrNone = 0
    """Processes that read images ahead."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (published .th files)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute, in float32."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        check_settings(self)

    def find(self, models: Mapping[str, PretrainedModel], console: Console) -> FoundImages:
        """Find the data, and say what was found.

        Args:
            models: of one architecture, by the names that messages call them.
            console: to say it on.

        Raises:
            InputError: nothing says which data, or they cannot be read.
        """
        data = self._data(models)
        config = next(iter(models.values())).config
        splits = open_splits(data, config.image_size, config.image_channels)
        source: ImageSource = getattr(splits, self.split)
        for line in [*inventory_lines(splits), *check_readers(self.num_workers, source)]:
            console.print(line, soft_wrap=True)
        return FoundImages(data.dataset, source, take_inventory(splits))

    def measuring(self, source: ImageSource, world: World, track: Tracker, name: str = "") -> Measuring:
        """How the model called `name` is measured on `source` (raises InputError where that is empty)."""
        examples = self.examples or len(source)
        return Measuring(source, examples, self.batch, self.seed, world, track, name, self.num_workers)

    def _data(self, models: Mapping[str, PretrainedModel]) -> DataSettings:
        """As named, else what the first model was trained on; where the first run among the models had them."""
        name, first = next(iter(models.items()))
        chosen = self.dataset or first.dataset
        if not chosen:
            raise InputError(
                f"model '{name}' does not say what data it was trained on; name a data set with --dataset."
            )
        runs = [] if self.data_root else [run_settings(model) for model in models.values()]
        own = next((run for run in runs if run.get("dataset") == chosen), {})
        root = self.data_root or str(own.get("data_root", ""))
        bad_images = self.bad_images or own.get("bad_images", "stop")
        return DataSettings(chosen, root, bad_images, self.num_workers)


def first_pixels(source: ImageSource, count: int) -> Tensor:
    """The split's first `count` images, or all where it has fewer: (B, C, H, W) uint8."""
    return torch.from_numpy(source.read(range(min(count, len(source))))).permute(0, 3, 1, 2)
