"""`vdvae-lr push`: weights to a Hub repository, with a model card filled from the run that made them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.card import CardSettings
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.setting_checks import PathText


@dataclass(frozen=True, kw_only=True)
class PushSettings(CardSettings):
    """Upload weights to the Hugging Face Hub as safetensors, with settings and a model card filled from the run."""

    source: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run, a checkpoint, a folder or file of weights, or a name."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """Repository on the Hub, which is made if needed. Log in with 'hf auth login', or set HF_TOKEN."""
    license: str = ""
    """Licence of the weights for the card, by the Hub's name for it (mit, cc-by-nc-sa-4.0); empty: state none."""
    private: bool = False
    """Make a new repository private."""
    branch: str = ""
    """Branch to push to; empty: the default one."""
    create_pr: bool = False
    """Open a pull request instead of committing."""
    message: str = ""
    """Commit message; empty: "Weights of NAME"."""
    ema: bool = True
    """Take the averaged weights, if there are also those before averaging."""


def run(settings: PushSettings) -> None:
    """Push (raises InputError for unusable weights, no login, no right to write there, or no connection)."""
    if settings.repository.count("/") != 1:
        raise InputError(f"'{settings.repository}' cannot be a repository's name; write OWNER/NAME.")
    model = settings.load(settings.source, settings.ema)
    settings.compare(model, settings.source)
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
