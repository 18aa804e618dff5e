"""The model classes that weights can be of.

A class becomes known where it is defined (`PretrainedModel`). Files only name their class: no code comes with them.
"""

from typing import Any

from vdvae_lr.errors import InputError
from vdvae_lr.model.vdvae.vae import VAEConfig

DEFAULT_CLASS = "VDVAE"
"""The class of a config.json that names none."""
_CONFIGS: dict[str, type] = {DEFAULT_CLASS: VAEConfig}


def make_known(name: str, config: type) -> None:
    """Let weights be of the class called `name`, whose settings are of the dataclass `config`."""
    _CONFIGS[name] = config


def config_class(name: str, source: str) -> type:
    """The dataclass of the settings of the class called `name`.

    Raises:
        InputError: no such class is known; `source` is the file that names it.
    """
    if name not in _CONFIGS:
        raise InputError(
            f"{source} describes a model of class {name!r:.100}, which is not known here; run the command through the "
            "file that defines it (python FILE.py COMMAND …), or import that file first (docs/your_model.md)."
        )
    return _CONFIGS[name]


def class_name(config: Any) -> str:
    """The name of the class that is built from these settings."""
    return next(name for name, kind in _CONFIGS.items() if kind is type(config))
