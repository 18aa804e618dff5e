"""Loaded models, the same on every process: those that a person names, and the one that fine-tuning started from."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import tyro

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.run_record import start_of_run
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.weight_folder import check_finite, checksum, stored_tensors
from vdvae_lr.processes.world import World
from vdvae_lr.setting_checks import check_settings


@dataclass(frozen=True)
class ModelWeights(WeightSettings):
    """Where weights and the model's settings come from."""

    hps: str = ""
    """Preset of the model's settings, for weights that come without them, such as .th files of your own."""


@dataclass(frozen=True, kw_only=True)
class LoadingSettings:
    """How models are loaded."""

    weights: tyro.conf.OmitArgPrefixes[ModelWeights] = dataclasses.field(default_factory=ModelWeights)

    def __post_init__(self) -> None:
        """Check every setting by its type (raises InputError)."""
        check_settings(self)

    def load(self, source: str, ema: bool = True) -> PretrainedModel:
        """The model that `source` names on the command line (raises InputError if it cannot be used)."""
        return PretrainedModel.from_pretrained(
            source, ema=ema, config=model_settings(self.weights.hps), sources=self.weights
        )


def load_model(load: Callable[[], PretrainedModel], name: str, world: World) -> PretrainedModel:
    """The model that `load` loads on the CPU, on the world's device; messages call it `name`.

    Every process must call this.

    Raises:
        InputError: there are no such weights, they are damaged or not finite, or processes have different ones.
    """
    model = world.patiently(load, "loading weights")
    _check_processes_agree(model, name, world)
    check_finite(model, name)
    return _placed(model, world)


def load_start_of_run(
    model: PretrainedModel, weights: WeightSettings, world: World
) -> tuple[PretrainedModel | None, str, str]:
    """The model that the average of `model`'s run started from, if the run names it and every process can use it.

    Returns:
        The model, its name, and, if it cannot be used, a sentence that says why.
    """
    settings = run_settings(model)
    _, start = start_of_run(settings)
    if not start.name:
        return None, "", ""
    name = without_secrets(start.name)
    places = WeightSettings(
        str(settings.get("revision", "")),
        weights.weights_mirror or str(settings.get("weights_mirror", "")),
        weights.lr_repository or str(settings.get("lr_repository", "")),
    )

    def load() -> PretrainedModel | InputError:
        try:
            found = PretrainedModel.from_pretrained(start.name, ema=start.ema, config=model.config, sources=places)
            check_finite(found, name)
        except InputError as error:
            return error
        return found

    found = world.patiently(load, "loading weights from before fine-tuning")
    failed_somewhere = world.highest(isinstance(found, InputError))
    try:
        if isinstance(found, InputError):
            raise found
        if failed_somewhere:
            raise InputError("Another process cannot use it.")
        _check_processes_agree(found, name, world)
    except InputError as error:
        return None, "", f"The model before fine-tuning, '{name}', is left out; name it with --before. {error}"
    return _placed(found, world), name, ""


def run_settings(model: PretrainedModel) -> Mapping[str, Any]:
    """The settings, by name, of the run that made the weights; empty if no run is known."""
    record = model.provenance.record
    return record.settings if record is not None else {}


def _check_processes_agree(model: PretrainedModel, name: str, world: World) -> None:
    """Refuse weights that differ between processes (raises InputError). Waits for all processes."""
    if not world.agree(checksum(stored_tensors(model).values())):
        raise InputError(
            f"the processes found different weights for '{name}'; let all read the same ones: one --revision, or one "
            "folder."
        )


def _placed(model: PretrainedModel, world: World) -> PretrainedModel:
    model.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
