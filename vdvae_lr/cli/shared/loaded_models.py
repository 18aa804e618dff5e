"""Models on the world's device, the same on every process: those named, and the one that fine-tuning started from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.run_record import start_of_run
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.weight_folder import check_finite, checksum
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.processes.world import World


def load_model(
    source: str, config: VAEConfig | None, weights: WeightSettings, world: World, *, name: str = ""
) -> PretrainedModel:
    """One model; all processes must call this.

    Args:
        source: a run, a folder or file of weights, or a name.
        config: for weights that come without settings; others must have the same.
        weights: where names are looked up.
        world: on whose device the model is put.
        name: what messages call it; empty: as `source`, without secrets.

    Raises:
        InputError: no such weights, damaged ones, or other ones on other processes.
    """
    name = name or without_secrets(source)

    def load() -> PretrainedModel:
        return PretrainedModel.from_pretrained(source, config=config, sources=weights)

    model = world.patiently(load, "loading weights")
    check_processes_agree(model, name, world)
    check_finite(model, name)
    return _placed(model, world)


def load_models(
    sources: Mapping[str, str], config: VAEConfig | None, weights: WeightSettings, world: World
) -> dict[str, PretrainedModel]:
    """Models by name, from their sources by name; otherwise as `load_model`."""
    return {name: load_model(source, config, weights, world, name=name) for name, source in sources.items()}


def check_processes_agree(model: nn.Module, name: str, world: World) -> None:
    """Refuse weights of which processes have different ones (raises InputError); waits for all of them."""
    if not world.agree(checksum(model.state_dict().values())):
        raise InputError(
            f"the processes found different weights for '{name}'; let all read the same ones: one --revision, or one "
            "folder."
        )


def load_named_before(source: str, model: PretrainedModel, weights: WeightSettings, world: World) -> PretrainedModel:
    """The model that a person names as the one before fine-tuning.

    Raises:
        InputError: as `load_model`, or it is of another architecture than `model`.
    """
    return load_model(source, model.config, dataclasses.replace(weights, revision=""), world)


def load_start_of_run(
    model: PretrainedModel, weights: WeightSettings, world: World
) -> tuple[PretrainedModel | None, str, str]:
    """The model that the average of `model`'s run started from, if the run says so and every process can use it.

    Returns:
        The model; its name; and, if there should be a model but is none, a sentence that says why.
    """
    run = run_settings(model)
    _, start = start_of_run(run)
    if not start.name:
        return None, "", ""
    name = without_secrets(start.name)
    sources = WeightSettings(
        str(run.get("revision", "")),
        weights.weights_mirror or str(run.get("weights_mirror", "")),
        weights.lr_repository or str(run.get("lr_repository", "")),
    )

    def load() -> PretrainedModel | InputError:
        try:
            found = PretrainedModel.from_pretrained(start.name, ema=start.ema, config=model.config, sources=sources)
            check_finite(found, name)
        except InputError as error:
            return error
        return found

    found = world.patiently(load, "loading weights from before fine-tuning")
    try:
        return _placed(_usable_everywhere(found, name, world), world), name, ""
    except InputError as error:
        return None, "", f"The model before fine-tuning, '{name}', is left out; name it with --before. {error}"


def _usable_everywhere(found: PretrainedModel | InputError, name: str, world: World) -> PretrainedModel:
    """What this process found, where all found the same; else every process raises InputError."""
    failed_somewhere = world.highest(isinstance(found, InputError))
    if isinstance(found, InputError):
        raise found
    if failed_somewhere:
        raise InputError("Another process cannot use it.")
    check_processes_agree(found, name, world)
    return found


def run_settings(model: PretrainedModel) -> Mapping[str, Any]:
    """Of the run that made the weights, by name; empty where no run is known."""
    record = model.provenance.record
    return record.settings if record is not None else {}


def _placed(model: PretrainedModel, world: World) -> PretrainedModel:
    model.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
