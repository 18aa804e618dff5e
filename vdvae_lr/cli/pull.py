"""`vdvae-lr pull`: weights into this machine's cache, for nodes without network, or into a folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.loaded_models import LoadingSettings
from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import DIGESTS_NAME, check_listed_digest, write_digests
from vdvae_lr.files.hub_client import HubAccess, optional_repository_file
from vdvae_lr.files.paths import exists
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.hub.model_card import CARD_NAME, FIGURES, PICTURE_NAME
from vdvae_lr.hub.sources import WeightSource, find_weights
from vdvae_lr.hub.vdvae.published import PUBLISHED, published_file
from vdvae_lr.hub.weight_folder import CONFIG_NAME, WEIGHTS_NAME
from vdvae_lr.setting_checks import PathText

_BESIDE_THE_WEIGHTS = (DIGESTS_NAME, CONFIG_NAME, CARD_NAME, f"{FIGURES}/{PICTURE_NAME}")


@dataclass(frozen=True, kw_only=True)
class PullSettings(LoadingSettings):
    """Fetch weights into the Hugging Face cache (HF_HOME), where later commands find them without network."""

    name: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A published name, lrvdvae-NAME, a Hub repository, or an https address."""
    folder: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = ""
    """Folder for the weights, with settings and a model card; empty: none. Nothing that exists is overwritten."""
    everything: bool = False
    """Also fetch a published model's weights before averaging and its optimiser's state."""


def run(settings: PullSettings) -> None:
    """Pull (raises InputError for unknown weights, no connection, or a folder that exists or cannot be written)."""
    folder = Path(settings.folder) if settings.folder else None
    if folder is not None and exists(folder):
        raise InputError(f"{folder} exists already; choose another name, or remove it first.")
    if exists(Path(settings.name)):
        raise InputError(f"{settings.name} is on this machine already; pull from a folder without that name.")
    found = find_weights(settings.name, settings.weights)
    paths = [found.path]
    if settings.everything:
        if settings.name not in PUBLISHED or not PUBLISHED[settings.name].complete:
            raise InputError(f"'{settings.name}' has no more than its averaged weights; leave --everything out.")
        paths += [published_file(settings.name, kind, settings.weights.mirror) for kind in ("model", "opt")]
    for path in paths:
        print(f"{path}  {path.stat().st_size:,} bytes")
    if folder is not None:
        with replacing(folder) as fresh:
            if found.repository:
                fresh.mkdir()
                _copy_repository(found, fresh)
            else:
                settings.load(settings.name).save_pretrained(fresh)
        print(f"wrote {folder}")


def _copy_repository(found: WeightSource, folder: Path) -> None:
    """Copy a repository's own files, and write digests if it has none."""
    shutil.copy(found.path, folder / WEIGHTS_NAME)
    commit = HubAccess(revision=found.path.parent.name)
    for name in _BESIDE_THE_WEIGHTS:
        path = optional_repository_file(found.repository, name, commit)
        if path is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(path, folder / name)
    if (folder / DIGESTS_NAME).is_file():
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            check_listed_digest(folder / name, found.remedy)
    else:
        write_digests(folder, (CONFIG_NAME, WEIGHTS_NAME))
