"""Settings: defaults < base preset < preset < command line, resolved once and typed.

Every setting belongs to the dataclass beside the code it controls; on the command line and in presets they are one flat
list of names. A preset is a TOML file in `hps/`: `base = "other"` starts from another one, everything else is settings.
"""

import argparse
import dataclasses
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from vdvae_lr.bundled import bundled_folder
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.hub.weight_folder import type_words, value_fits
from vdvae_lr.training.settings import RunSettings, Settings


def resolve_settings(arguments: Sequence[str], program: str) -> Settings:
    """The settings of a command line; `--help` and words no setting understands end the program as tyro does.

    Raises:
        InputError: an unknown preset, a mistake in one, or values that do not go together.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    names = ("--hps", "--hparam_sets", "--hparam-sets")  # tyro takes a dash for an underscore
    default = RunSettings.hps
    finder.add_argument(*names, dest="hps", nargs="?", const=default, default=default)  # no value: tyro says so below
    hps: str = finder.parse_known_args(arguments)[0].hps
    preset = apply_values(Settings(), {**read_presets(hps), "hps": hps}, f"--hps {hps}")
    return tyro.cli(Settings, default=preset, args=list(arguments), prog=program, use_underscores=True)


def read_presets(names: str) -> dict[str, Any]:
    """The settings of comma-separated presets, later ones winning, each on top of its base."""
    values: dict[str, Any] = {}
    for name in names.split(","):
        values |= _read_preset(name.strip(), ())
    return values


def _read_preset(name: str, above: tuple[Path, ...]) -> dict[str, Any]:
    folder = bundled_folder("hps")
    known = sorted(path.stem for path in folder.glob("*.toml"))
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    chain = (*above, path.resolve())  # whole paths: a file of yours may share its name with the preset it builds on
    if chain[-1] in above:
        raise InputError(f"preset '{name}' is its own base ({' → '.join(p.name for p in chain)}); remove one base.")
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        hint = nearest_name_hint(name, known)
        names = ", ".join(known)
        raise InputError(f"there is no preset '{name}'{hint}; --hps knows {names}, or a .toml file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"preset {path} cannot be read ({error}); mend the file.") from None
    base = values.pop("base", None)
    return (_read_preset(str(base), chain) if base else {}) | values


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
        if name not in hints:
            raise InputError(f"{source}: there is no setting '{name}'{nearest_name_hint(name, list(hints))}.")
        group, hint = hints[name]
        if not value_fits(value, hint):
            raise InputError(f"{source}: {name} is {value!r}; it must be {type_words(hint)}.")
        changes[group][name] = value
    replaced = {group: dataclasses.replace(getattr(settings, group), **new) for group, new in changes.items() if new}
    return dataclasses.replace(settings, **replaced)
