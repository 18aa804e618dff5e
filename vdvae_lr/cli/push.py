"""`vdvae-lr push`: weights to a Hub repository, with a model card filled from the run that made them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.setting_checks import PathText, check_settings


@dataclass(frozen=True)
class PushSettings:
    """Upload weights to the Hugging Face Hub as safetensors, with settings and a model card filled from the run."""

    source: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run, a checkpoint, a folder or file of weights, or a name."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository on the Hub; made where needed. Log in with 'hf auth login', or set HF_TOKEN."""
    license: str = ""
    """Licence of the weights for the card, by the Hub's name for it (mit, cc-by-nc-sa-4.0); empty: none is stated."""
    private: bool = False
    """Make a new repository private."""
    branch: str = ""
    """Branch to push to; empty: the default one."""
    create_pr: bool = False
    """Open a pull request instead of committing."""
    message: str = ""
    """Of the commit."""
    ema: bool = True
    """The averaged weights, where there are also those before averaging."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (.th files of your own)."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)


def run(settings: PushSettings) -> None:
    """Push.

    Raises:
        InputError: no such weights, no login, no right to write there, or no connection.
    """
    if settings.repository.count("/") != 1:
        raise InputError(f"'{settings.repository}' cannot be a repository's name; write OWNER/NAME.")
    model = PretrainedModel.from_pretrained(
        settings.source, ema=settings.ema, config=model_settings(settings.hps), sources=settings.weights
    )
    model.provenance = dataclasses.replace(model.provenance, licence=settings.license)
    address = model.push_to_hub(
        settings.repository,
        private=settings.private or None,
        branch=settings.branch or None,
        create_pr=settings.create_pr or None,
        commit_message=settings.message or f"Weights of {Path(without_secrets(settings.source)).name}",
    )
    print(f"pushed {without_secrets(settings.source)} to {getattr(address, 'pr_url', None) or address}")
    where = f'"{settings.repository}"' + (f', revision="{settings.branch}"' if settings.branch else "")
    print(f"load it{', once it is merged,' if settings.create_pr else ''} with vdvae_lr.VDVAE.from_pretrained({where})")
