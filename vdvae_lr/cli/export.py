"""`vdvae-lr export`: a run's averaged weights, or any other weights, as one folder or one published-format file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import exists
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.vdvae.tensors import write_published
from vdvae_lr.setting_checks import PathText, check_settings


@dataclass(frozen=True)
class ExportSettings:
    """Write weights where other programs, or `--pretrained`, can read them."""

    source: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run, a checkpoint, a folder or file of weights, a Hub repository, an address, or a name."""
    target: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """safetensors: the folder to make; published: the .th file to write. Nothing that exists is overwritten."""
    format: Literal["safetensors", "published"] = "safetensors"
    """safetensors: a folder with model.safetensors, config.json and a model card; published: the published code's
    .th."""
    ema: bool = True
    """The averaged weights, where there are also those before averaging."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (.th files of your own)."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)


def run(settings: ExportSettings) -> None:
    """Export.

    Raises:
        InputError: no such weights, or a target that exists or cannot be written.
    """
    target = Path(settings.target)
    if exists(target):
        raise InputError(f"{target} exists already; choose another name, or remove it first.")
    model = PretrainedModel.from_pretrained(
        settings.source, ema=settings.ema, config=model_settings(settings.hps), sources=settings.weights
    )
    if settings.format == "published":
        write_published(model, model.state_dict(), target)
    else:
        with replacing(target) as folder:
            model.save_pretrained(folder)
    print(f"wrote {target}")
