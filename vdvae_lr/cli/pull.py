"""`vdvae-lr pull`: weights into this machine's cache, so that a node without network has them, or into a folder."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import DIGESTS_NAME, check_listed_digest, write_digests
from vdvae_lr.files.paths import exists
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.hub.hub_client import HubAccess, optional_repository_file
from vdvae_lr.hub.model_card import CARD_NAME, FIGURES, PICTURE_NAME
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.sources import WeightSettings, WeightSource, find_weights
from vdvae_lr.hub.vdvae.published import PUBLISHED, published_file
from vdvae_lr.hub.weight_folder import CONFIG_NAME, WEIGHTS_NAME
from vdvae_lr.setting_checks import PathText, check_settings

_BESIDE_THE_WEIGHTS = (DIGESTS_NAME, CONFIG_NAME, CARD_NAME, f"{FIGURES}/{PICTURE_NAME}")


@dataclass(frozen=True)
class PullSettings:
    """Fetch weights into the Hugging Face cache (HF_HOME), where later commands find them without network."""

    name: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A published name, lrvdvae-NAME, a Hub repository, or an https address."""
    folder: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = ""
    """Also write them here, with settings and model card; nothing that exists is overwritten."""
    everything: bool = False
    """Of a published model also the weights before averaging and the optimiser's state."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)


def run(settings: PullSettings) -> None:
    """Pull.

    Raises:
        InputError: no such weights, no connection, or a folder that exists or cannot be written.
    """
    folder = Path(settings.folder) if settings.folder else None
    if folder is not None and exists(folder):
        raise InputError(f"{folder} exists already; choose another name, or remove it first.")
    if exists(Path(settings.name)):
        raise InputError(f"{settings.name} is on this machine already; pull from a folder without that name.")
    source = find_weights(settings.name, settings.weights)
    paths = [source.path]
    if settings.everything:
        if settings.name not in PUBLISHED or not PUBLISHED[settings.name].complete:
            raise InputError(
                f"of '{settings.name}' there is no more than its averaged weights; leave --everything out."
            )
        paths += [published_file(settings.name, kind, settings.weights.mirror) for kind in ("model", "opt")]
    for path in paths:
        print(f"{path}  {path.stat().st_size:,} bytes")
    if folder is not None:
        _write(settings, source, folder)
        print(f"wrote {folder}")


def _write(settings: PullSettings, source: WeightSource, folder: Path) -> None:
    """A repository's own files as they are, with digests where it has none; of other weights, a folder of ours."""
    with replacing(folder) as fresh:
        if source.repository:
            fresh.mkdir()
            _copy_repository(source, fresh)
        else:
            model = PretrainedModel.from_pretrained(
                settings.name, config=model_settings(settings.hps), sources=settings.weights
            )
            model.save_pretrained(fresh)


def _copy_repository(source: WeightSource, folder: Path) -> None:
    shutil.copy(source.path, folder / WEIGHTS_NAME)
    commit = HubAccess(revision=source.path.parent.name)
    for name in _BESIDE_THE_WEIGHTS:
        path = optional_repository_file(source.repository, name, commit)
        if path is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(path, folder / name)
    if (folder / DIGESTS_NAME).is_file():
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            check_listed_digest(folder / name, source.remedy)
    else:
        write_digests(folder, (CONFIG_NAME, WEIGHTS_NAME))
