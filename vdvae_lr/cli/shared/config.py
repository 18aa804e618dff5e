"""Settings: defaults < base preset < preset < command line, resolved once and typed.

Every setting belongs to the dataclass beside the code it controls; on the command line and in presets they are one flat
list of names.
"""

import argparse
import dataclasses
import datetime
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdvae_lr.cli.shared.command_line import parse_settings, whole_number_hint
from vdvae_lr.datasets.catalogue import DATASETS
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.sources import WeightSettings, find_weights, settings_of
from vdvae_lr.hub.weight_folder import type_words, value_fits
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.training.settings import RunSettings, Settings


def resolve_settings(arguments: Sequence[str], program: str) -> Settings:
    """The settings of a command line; `--help` and words no setting understands end the program as tyro does.

    Without --hps, weights named by --pretrained bring their settings along, and are fetched for it where needed.

    Raises:
        InputError: an unknown preset, a mistake in one, values that do not go together, or no such weights.
    """
    given = _found(arguments)
    if given["hps"] is None and given["pretrained"] not in (None, "none") and not {"-h", "--help"} & set(arguments):
        preset = _settings_of_weights(**{name: word or "" for name, word in given.items() if name != "hps"})
    else:
        hps = given["hps"] or RunSettings.hps
        preset = apply_values(Settings(), {**read_presets(hps), "hps": hps}, f"--hps {hps}")
    return parse_settings(Settings, arguments, program, preset)


def _found(arguments: Sequence[str]) -> dict[str, str | None]:
    """The words on which the defaults of all other settings depend; None where they are not given."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("hps", "pretrained", "revision", "weights_mirror", "lr_repository"):
        names = ("hps", "hparam_sets") if name == "hps" else (name,)
        flags = {f"--{spelt}" for each in names for spelt in (each, each.replace("_", "-"))}  # as tyro takes them
        finder.add_argument(*sorted(flags), dest=name, nargs="?")  # no value: tyro says so
    return vars(finder.parse_known_args(arguments)[0])


def _settings_of_weights(pretrained: str, revision: str, weights_mirror: str, lr_repository: str) -> Settings:
    """The preset that describes the same model, if there is one; else the model's settings on top of the defaults."""
    source = find_weights(pretrained, WeightSettings(revision, weights_mirror, lr_repository))
    config = settings_of(source)
    for path in sorted(bundled_folder("hps").glob("*.toml")):
        preset = apply_values(Settings(), {**read_presets(path.stem), "hps": path.stem}, path.name)
        if preset.model == config and preset.run.pretrained != "none":
            return preset
    name = f"from-{Path(without_secrets(pretrained)).stem}"  # another one than of the run that the weights may lie in
    values = dataclasses.asdict(config) | {"hps": "", "desc": name}
    if source.dataset in DATASETS:
        values["dataset"] = source.dataset
    return apply_values(Settings(), values, f"--pretrained {pretrained}")


def model_settings(presets: str) -> VAEConfig | None:
    """The model that comma-separated presets describe, for weights that come without settings; None for no preset.

    Raises:
        InputError: an unknown preset, or a mistake in one.
    """
    return apply_values(Settings(), read_presets(presets), f"--hps {presets}").model if presets else None


def apply_values(settings: Settings, values: Mapping[str, Any], source: str) -> Settings:
    """`settings` with flat `values` on top, names and types checked.

    Raises:
        InputError: a name no group has (with the nearest known one), or a value of another type.
    """
    groups = {field.name: type(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    hints = {
        name: (group, hint) for group, kind in groups.items() for name, hint in typing.get_type_hints(kind).items()
    }
    changes: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for name, value in values.items():
        if isinstance(value, Mapping):
            raise InputError(f"{source}: '{name}' is a table; write every setting as NAME = VALUE, without [{name}].")
        if name not in hints:
            raise InputError(f"{source}: there is no setting '{name}'{nearest_name_hint(name, list(hints))}.")
        group, hint = hints[name]
        if not value_fits(value, hint):
            hint_words = type_words(hint) + (whole_number_hint(value) if hint is int else _without_quotes(value, hint))
            raise InputError(f"{source}: {name} is {_as_written(value)}; it must be {hint_words}.")
        changes[group][name] = value
    try:
        replaced = {
            group: dataclasses.replace(getattr(settings, group), **new) for group, new in changes.items() if new
        }
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return dataclasses.replace(settings, **replaced)


def _as_written(value: object) -> str:
    return str(value) if isinstance(value, datetime.date | datetime.time) else repr(value)


def _without_quotes(value: object, hint: Any) -> str:
    """What to do about `lr = "0.1"` and `fresh = "true"`."""
    if not isinstance(value, str) or hint not in (float, bool):
        return ""
    words = value.strip().lower()
    try:
        fits = words in ("true", "false") if hint is bool else not math.isnan(float(words))
    except ValueError:
        return ""
    return f"; write {words}, without quotes" if fits else ""
