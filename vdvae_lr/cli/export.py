"""`vdvae-lr export`: a run's averaged weights, or any other weights, as one folder or one published-format file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vdvae_lr.errors import InputError
from vdvae_lr.hub.openai import write_published
from vdvae_lr.hub.repository import load_pretrained
from vdvae_lr.hub.weight_folder import WEIGHTS_NAME, write_config, write_weights
from vdvae_lr.whole_file import replacing


@dataclass(frozen=True)
class ExportSettings:
    """Write weights where other programs, or `--pretrained`, can read them."""

    source: Annotated[str, tyro.conf.Positional]
    """A run, a checkpoint, a folder of weights, or a name: its averaged (EMA) weights are taken."""
    target: Annotated[str, tyro.conf.Positional]
    """safetensors: the folder to make; published: the .th file to write. Nothing that exists is overwritten."""
    format: Literal["safetensors", "published"] = "safetensors"
    """safetensors: a folder with model.safetensors and config.json; published: the published code's .th."""


def run(settings: ExportSettings) -> None:
    """Export.

    Raises:
        InputError: no such weights, or a target that exists or cannot be written.
    """
    target = Path(settings.target)
    if target.exists():
        raise InputError(f"{target} exists already; choose another name, or remove it first.")
    pretrained = load_pretrained(settings.source)
    state = pretrained.model.state_dict()
    if settings.format == "published":
        write_published(pretrained.model, state, target)
    else:
        with replacing(target) as folder:
            folder.mkdir()
            write_config(folder, pretrained.model.config, pretrained.dataset or "")
            write_weights(folder / WEIGHTS_NAME, state)
    print(f"wrote {target}")
