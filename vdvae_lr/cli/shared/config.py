"""Settings of a run: defaults < base preset < preset < command line; later ones win.

Each setting belongs to a dataclass next to the code that it controls. The command line and presets see one flat list of
names.
"""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdvae_lr.cli.shared.command_line import parse_settings
from vdvae_lr.datasets.catalogue import DATASETS
from vdvae_lr.errors import InputError
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.pretrained import VDVAE, PretrainedModel, class_called, config_of
from vdvae_lr.hub.sources import WeightSettings, WeightSource, find_weights, settings_of
from vdvae_lr.setting_checks import check_types
from vdvae_lr.training.settings import RunSettings, Settings, settings_for


def resolve_settings(
    arguments: Sequence[str], program: str, model: type[PretrainedModel] = VDVAE, example: str = ""
) -> tuple[Settings, WeightSource | None]:
    """The settings of a command line; `--help` and words that no setting understands end the program, as tyro does it.

    Without --hps, weights named by --pretrained bring their settings along. They are fetched for that if needed.

    Args:
        arguments: the words behind the program's name.
        program: what the program calls itself.
        model: the class that a run trains unless its weights are of another.
        example: a whole line for `--help`.

    Returns:
        The settings, and those weights; None if they brought no settings.

    Raises:
        InputError: an unknown preset, a mistake in one, values that do not go together, or no such weights.
    """
    given = _found(arguments)
    source = None
    if given["hps"] is None and given["pretrained"] not in (None, "none") and not {"-h", "--help"} & set(arguments):
        pretrained, *places = (word or "" for name, word in given.items() if name != "hps")
        source = find_weights(pretrained, WeightSettings(*places))
        preset = _settings_of_weights(source, pretrained)
    else:
        preset = _settings_of_preset(given["hps"], model)
    return parse_settings(type(preset), arguments, program, preset, example), source


def _settings_of_preset(hps: str | None, model: type[PretrainedModel]) -> Settings:
    """The presets of a command line; a model of one's own has none by default, and its run has the class's name."""
    if hps is None and model is not VDVAE:
        defaults = settings_for(config_of(model))()
        return apply_values(defaults, {"hps": "", "desc": model.__name__.lower()}, model.__name__)
    return settings_of_presets(hps or RunSettings.hps, model)


def settings_of_presets(presets: str, model: type[PretrainedModel] = VDVAE) -> Settings:
    """The settings that comma-separated presets describe, of a run that trains `model` unless they name another class.

    Raises:
        InputError: an unknown preset, or a mistake in one.
    """
    values, source = read_presets(presets), f"--hps {presets}"
    try:
        kind = class_called(values.pop("model")) if "model" in values else model
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return apply_values(settings_for(config_of(kind))(), values | {"hps": presets}, source)


def _found(arguments: Sequence[str]) -> dict[str, str | None]:
    """The words on which the defaults of all other settings depend; None for those that are not given."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("hps", "pretrained", "revision", "weights_mirror", "lr_repository"):
        names = ("hps", "hparam_sets") if name == "hps" else (name,)
        flags = {f"--{spelt}" for each in names for spelt in (each, each.replace("_", "-"))}  # tyro takes both
        finder.add_argument(*sorted(flags), dest=name, nargs="?")  # tyro complains of a missing value
    return vars(finder.parse_known_args(arguments)[0])


def _settings_of_weights(source: WeightSource, pretrained: str) -> Settings:
    """The preset that describes the same model, if there is one; else the model's settings on top of the defaults."""
    config = settings_of(source)
    for path in sorted(bundled_folder("hps").glob("*.toml")):
        preset = settings_of_presets(path.stem)
        if preset.model == config and preset.run.pretrained != "none":
            return preset
    name = f"from-{Path(without_secrets(pretrained)).stem}"  # the weights may lie in a run: do not take its name
    values = dataclasses.asdict(config) | {"hps": "", "desc": name}
    if source.dataset in DATASETS:
        values["dataset"] = source.dataset
    return apply_values(settings_for(type(config))(), values, f"--pretrained {pretrained}")


def model_settings(presets: str) -> Any:
    """The model that comma-separated presets describe, for weights that come without settings; None without a preset.

    Raises:
        InputError: an unknown preset, or a mistake in one.
    """
    return settings_of_presets(presets).model if presets else None


def apply_values(settings: Settings, values: Mapping[str, Any], source: str) -> Settings:
    """`settings` with flat `values` on top, after a check of their names and types; `source` is named in errors.

    Raises:
        InputError: a name that no group has (with the nearest known one), or a value that its setting refuses.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            raise InputError(f"{source}: '{name}' is a table; write every setting as NAME = VALUE, without [{name}].")
    groups = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    hints = {name: typing.get_type_hints(type(group)) for name, group in groups.items()}
    check_types(values, {name: hint for group in hints.values() for name, hint in group.items()}, source)
    changes = {group: {name: value for name, value in values.items() if name in hints[group]} for group in groups}
    try:
        changed = {group: dataclasses.replace(groups[group], **new) for group, new in changes.items() if new}
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return dataclasses.replace(settings, **changed)
