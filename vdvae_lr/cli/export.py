"""`vdvae-lr export`: a run's averaged weights, or any other weights, as a folder or a file in the published format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vdvae_lr.cli.shared.card import CardSettings
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import exists
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.hub.vdvae.tensors import write_published
from vdvae_lr.setting_checks import PathText


@dataclass(frozen=True, kw_only=True)
class ExportSettings(CardSettings):
    """Write weights where other programs, or `--pretrained`, can read them."""

    source: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run, a checkpoint, a folder or file of weights, a Hub repository, an address, or a name."""
    target: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """safetensors: the folder to make; published: the .th file to write. Nothing that exists is overwritten."""
    format: Literal["safetensors", "published"] = "safetensors"
    """safetensors: a folder with model.safetensors, config.json and a model card; published: a .th file as the
    published code reads it."""
    ema: bool = True
    """Take the averaged weights, if there are also those before averaging."""


def run(settings: ExportSettings) -> None:
    """Export (raises InputError if the weights cannot be used, or the target exists or cannot be written)."""
    target = Path(settings.target)
    if exists(target):
        raise InputError(f"{target} exists already; choose another name, or remove it first.")
    if settings.format == "published" and settings.against:
        raise InputError("--against is for the model card, and the published format has none; leave it out.")
    model = settings.load(settings.source, settings.ema)
    if settings.format == "published":
        write_published(model, model.state_dict(), target)
    else:
        settings.compare(model, settings.source)
        with replacing(target) as folder:
            model.save_pretrained(folder)
    print(f"wrote {target}")
