"""Which data models are measured on, where no person names them: those of the runs that made the models."""

from collections.abc import Mapping
from typing import Literal

from vdvae_lr.cli.loaded_models import run_settings
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import InputError
from vdvae_lr.hub.vdvae import VDVAE
from vdvae_lr.model.vae import VAEConfig


def data_settings(models: Mapping[str, VDVAE], dataset: str, data_root: str, num_workers: int) -> DataSettings:
    """What to measure on: as named, else what the first model was trained on; a run's own folder for its own data.

    Args:
        models: by the names that messages call them.
        dataset: as named; empty: not.
        data_root: as named; empty: where the first of the models that is a run on these data found them.
        num_workers: processes that read images ahead.

    Raises:
        InputError: neither names a data set, or there is none of that name.
    """
    name, first = next(iter(models.items()))
    chosen = dataset or first.dataset
    if not chosen:
        raise InputError(f"model '{name}' does not say what data it was trained on; name a data set with --dataset.")
    runs = [] if data_root else [run_settings(model) for model in models.values()]
    own = next((run for run in runs if run.get("dataset") == chosen), {})
    return DataSettings(chosen, data_root or str(own.get("data_root", "")), own.get("bad_images", "stop"), num_workers)


def open_split(data: DataSettings, split: Literal["train", "valid", "test"], config: VAEConfig) -> ImageSource:
    """The split's images as a model takes them (raises InputError for data that cannot be read)."""
    source: ImageSource = getattr(open_splits(data, config.image_size, config.image_channels), split)
    return source
