"""Presets: TOML files in `hps/`, or of your own; `base = "other"` starts from another one, the rest is settings."""

import tomllib
from pathlib import Path
from typing import Any

from vdvae_lr.bundled import bundled_folder
from vdvae_lr.errors import InputError, nearest_name_hint


def read_presets(names: str) -> dict[str, Any]:
    """The settings of comma-separated presets, later ones winning, each on top of its base.

    Raises:
        InputError: an unknown preset, one that cannot be read, or one that is its own base.
    """
    values: dict[str, Any] = {}
    for name in names.split(","):
        values |= _read_preset(name.strip(), ())
    return values


def _read_preset(name: str, above: tuple[Path, ...]) -> dict[str, Any]:
    folder = bundled_folder("hps")
    known = sorted(path.stem for path in folder.glob("*.toml"))
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = nearest_name_hint(name, known)
        names = ", ".join(known)
        raise InputError(f"there is no preset '{name}'{hint}; --hps knows {names}, or a .toml file.") from None
    except (ValueError, OSError) as error:  # of the path too: a base may hold what no file name can
        raise InputError(f"preset {path} cannot be read ({error}); mend the file.") from None
    chain = (*above, path.resolve())  # whole paths: a file of yours may share its name with the preset it builds on
    if chain[-1] in above:
        raise InputError(f"preset '{name}' is its own base ({' → '.join(p.name for p in chain)}); remove one base.")
    base = values.pop("base", None)
    return (_read_preset(str(base), chain) if base else {}) | values
