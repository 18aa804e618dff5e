"""The model to evaluate, what is known of it, and the model it started from: all from one word of the command line."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vdvae_lr.datasets.catalogue import DataSettings
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.hub.run_record import SETTINGS_NAME
from vdvae_lr.hub.sound_weights import check_finite
from vdvae_lr.hub.sources import WeightSettings, checksum
from vdvae_lr.hub.vdvae import VDVAE
from vdvae_lr.model.vae import VAEConfig
from vdvae_lr.network_errors import without_secrets

_START_SETTINGS = ("restore_ema_path", "restore_path", "pretrained")  # of a run: the first that is set counts


def load_model(source: str, config: VAEConfig | None, weights: WeightSettings, world: World) -> VDVAE:
    """The model on the world's device, the same on every process; all of them must call this.

    Raises:
        InputError: no such weights, damaged ones, or other ones on other processes.
    """

    def load() -> VDVAE:
        return VDVAE.from_pretrained(source, config=config, sources=weights)

    return _placed(world.patiently(load, "loading weights"), source, world)


def _placed(model: VDVAE, source: str, world: World) -> VDVAE:
    name = without_secrets(source)
    if not world.agree(checksum(model.state_dict())):
        raise InputError(f"the processes found different weights for '{name}'; give one --revision, or one folder.")
    check_finite(model, name)
    model.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def load_named_before(source: str, model: VDVAE, weights: WeightSettings, world: World) -> VDVAE:
    """The model that a person names as the one before fine-tuning.

    Raises:
        InputError: as `load_model`, or it is of another architecture than `model`.
    """
    return load_model(source, model.config, dataclasses.replace(weights, revision=""), world)


def load_start_of_run(model: VDVAE, weights: WeightSettings, world: World) -> tuple[VDVAE | None, str, str]:
    """The model that the run of `model` started from, where it says so and that can be found.

    Returns:
        The model; its name; and a sentence on why there is none, where one was to be expected.
    """
    run = run_settings(model)
    start = next((str(run[name]) for name in _START_SETTINGS if run.get(name)), "none")
    if start == "none":
        return None, "", ""
    name = without_secrets(start)
    sources = WeightSettings(
        str(run.get("revision", "")),
        weights.weights_mirror or str(run.get("weights_mirror", "")),
        weights.lr_repository or str(run.get("lr_repository", "")),
    )

    def load() -> VDVAE | InputError:
        try:
            return VDVAE.from_pretrained(start, config=model.config, sources=sources)
        except InputError as error:
            return error

    found = world.patiently(load, "loading weights from before fine-tuning")
    if not world.highest(isinstance(found, InputError)):
        assert isinstance(found, VDVAE)
        return _placed(found, start, world), name, ""
    why = str(found) if isinstance(found, InputError) else "Another process cannot read it."
    return None, "", f"The model before fine-tuning, '{name}', is left out; name it with --before. {why}"


def run_settings(model: VDVAE) -> Mapping[str, Any]:
    """Of the run that made the weights, by name; empty where no run is known."""
    record = model.provenance.record
    return record.settings if record is not None else {}


def data_settings(model: VDVAE, source: str, dataset: str, data_root: str, num_workers: int) -> DataSettings:
    """What to measure on: as named, else what the model was trained on; a run's own folder for its own data.

    Raises:
        InputError: neither names a data set, or there is none of that name.
    """
    chosen = dataset or model.dataset
    if not chosen:
        raise InputError(
            f"model '{without_secrets(source)}' does not say what data it was trained on; name a data set with "
            "--dataset."
        )
    run = run_settings(model)
    own = run if run.get("dataset") == chosen and not data_root else {}
    root, bad_images = data_root or str(own.get("data_root", "")), own.get("bad_images", "stop")
    return DataSettings(chosen, root, bad_images, num_workers)


def is_run(source: str) -> bool:
    """Whether a word names a run's folder."""
    return (Path(source) / SETTINGS_NAME).is_file()


def model_name(source: str) -> str:
    """What to call a model: the last piece of its folder, file, repository or address."""
    path = Path(without_secrets(source))
    known = (".th", ".pt", ".safetensors")
    return (path.stem if path.suffix in known else path.name) or path.resolve().name or "model"
