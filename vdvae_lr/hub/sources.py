"""Finds weights by the name that a person gives them, and fetches them if they are not on this machine.

| given                                     | what it is                                                            |
|-------------------------------------------|-----------------------------------------------------------------------|
| `DIR` with config.json, model.safetensors | weights saved by this program                                         |
| `DIR` of a run, or one of its checkpoints | the newest, or that, checkpoint                                       |
| `FILE.th`                                 | published format                                                      |
| `FILE.safetensors`                        | our names; settings from the config.json beside it                    |
| `fashion`, `lrvdvae-fashion`              | a model that ships with this program (`models/`)                      |
| `ffhq256`, `cifar10-seed0`, …             | a published VDVAE, from its official address or `weights_mirror`      |
| `lrvdvae-ffhq256`, …                      | a VDVAE fine-tuned with LR, from `lr_repository`                      |
| `https://…/FILE.th`, `….safetensors`      | such a file, and for safetensors the config.json beside it            |
| `OWNER/NAME`                              | a Hub repository with config.json and model.safetensors               |
"""

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor

from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.bundled import bundled_folder, is_bundled_model
from vdvae_lr.files.digests import DIGESTS_NAME, check_listed_digest, listed_digests, read_digests
from vdvae_lr.files.download import check_https, fetch, record_of
from vdvae_lr.files.hub_client import (
    HubAccess,
    asset_path,
    check_hub_name,
    optional_repository_file,
    pull_elsewhere,
    repository_file,
)
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import exists, expanded, is_file, is_folder
from vdvae_lr.files.run_folder import CHECKPOINTS, EMA_NAME, complete_checkpoints, newest_checkpoint
from vdvae_lr.hub.torch_files import TORCH_SUFFIXES, read_tensors
from vdvae_lr.hub.vdvae.published import PUBLISHED, PublishedModel, preset_by_shapes, published_file, published_name
from vdvae_lr.hub.vdvae.tensors import from_published
from vdvae_lr.hub.weight_folder import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_fit,
    class_name,
    read_config,
    read_shapes,
    read_weights,
    stored_tensors,
)
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.setting_checks import PathText, check_settings

LR_PREFIX = "lrvdvae-"
MIRROR_VARIABLE = "VDVAE_LR_MIRROR"
LR_REPOSITORY_VARIABLE = "VDVAE_LR_REPOSITORY"
_LR_ENDING = "_lr"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class WeightSettings:
    """Where weights come from."""

    revision: str = ""
    """Branch, tag or commit, if the weights are a Hub repository; empty: its default branch."""
    weights_mirror: PathText = ""
    """Where to find published files by name: a folder, an https address, or a Hub repository. Empty: the environment
    variable VDVAE_LR_MIRROR, else the official server."""
    lr_repository: str = ""
    """Hub repository of the weights called lrvdvae-NAME; {name} in it stands for NAME (somebody/lrvdvae-{name}). Empty:
    the environment variable VDVAE_LR_REPOSITORY."""

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)

    @property
    def mirror(self) -> str:
        """The setting, or else the environment variable (raises InputError if it has an unknown home folder)."""
        return self.weights_mirror or expanded(os.environ.get(MIRROR_VARIABLE, ""), MIRROR_VARIABLE)

    def lr_repository_of(self, name: str) -> str:
        """The repository of `lrvdvae-NAME` (raises InputError if none is set)."""
        pattern = self.lr_repository or os.environ.get(LR_REPOSITORY_VARIABLE, "")
        if not pattern:
            full = LR_PREFIX + name
            raise InputError(
                f"'{full}' does not come with this program{nearest_name_hint(full, [*bundled_models()])}, and its Hub "
                f"repository is not set; name it with --lr_repository or {LR_REPOSITORY_VARIABLE}, such as "
                f"somebody/{LR_PREFIX}{{name}}."
            )
        return pattern.replace("{name}", name)


@dataclass(frozen=True)
class WeightSource:
    """Weights on this machine, and the settings that came with them.

    Attributes:
        path: the file of the weights.
        config, dataset: the content of its config.json; None for published files.
        published: the published model, if the file has the name of one of its files.
        repository: the Hub repository that the file comes from; empty: none.
        averaged: whether these are averaged weights; None: unknown.
        remedy: what a person can do if the file is damaged, as the end of a sentence; empty: the usual remedy.
    """

    path: Path
    config: Any = None
    dataset: str | None = None
    published: PublishedModel | None = None
    repository: str = ""
    averaged: bool | None = None
    remedy: str = field(default="", compare=False)

    @property
    def known_config(self) -> Any:
        """The model's settings from config.json, or those of the published model; None: unknown."""
        return self.config or (self.published.config() if self.published is not None else None)


def find_weights(
    name: str, settings: WeightSettings | None = None, *, ema: bool = True, access: HubAccess | None = None
) -> WeightSource:
    """Find the weights called `name`, and fetch them if they are not on this machine. Reads no tensor.

    Args:
        name: the module's docstring lists the possible names.
        settings: where names are looked up.
        ema: take the averaged weights, if there are also those before averaging (runs, published models).
        access: how to reach the Hub; its revision takes precedence over the one in `settings`.

    Raises:
        InputError: there are no such weights, or they cannot be fetched; the message says what to do.
    """
    if not name:
        raise InputError("the name of the weights is empty; give a name, a file, a folder or a Hub repository.")
    name = expanded(name)
    settings = settings or WeightSettings()
    access = access or HubAccess(revision=settings.revision or None)
    if not exists(Path(name)):
        check_hub_name(name)
    local = _on_this_machine(name, ema)
    repository = _repository_of(name, settings) if local is None else ""
    if repository:
        options = ["--revision", access.revision] if access.revision else []
        options += ["--lr_repository", settings.lr_repository] if settings.lr_repository and repository != name else []
        with pull_elsewhere(name, *options):
            return _in_repository(repository, access)
    if access.revision:
        raise InputError(f"'{name}' is no Hub repository, so it has no revision '{access.revision}'; leave it out.")
    if local is not None:
        return local
    if name in PUBLISHED:
        path = published_file(name, "model-ema" if ema else "model", settings.mirror, access)
        return WeightSource(path, published=PUBLISHED[name], averaged=ema)
    if "://" in name:
        with pull_elsewhere(name if without_secrets(name) == name else "ADDRESS"):
            return _at_address(name, access)
    known = [*bundled_models(), *PUBLISHED]
    raise InputError(
        f"there are no weights {name[:100]!r}{nearest_name_hint(name, known)}; give a file, a folder, a training run, "
        f"a Hub repository (OWNER/NAME), an https address, or one of {', '.join(known)}, {LR_PREFIX}NAME."
    )


def _repository_of(name: str, settings: WeightSettings) -> str:
    """The Hub repository that a name stands for; empty if it stands for none."""
    if name.startswith(LR_PREFIX):
        return settings.lr_repository_of(name.removeprefix(LR_PREFIX))
    if "://" in name or not _REPOSITORY.fullmatch(name):
        return ""
    if is_folder(Path(name).parent):  # more likely a misspelt path than an account
        raise InputError(f"there is no folder {name}; check its name (to mean a Hub repository, start elsewhere).")
    return name


def _on_this_machine(name: str, ema: bool) -> WeightSource | None:
    path = Path(name)
    if is_folder(path):
        return _in_folder(path, ema)
    if exists(path) or ("://" not in name and path.suffix in (*TORCH_SUFFIXES, ".safetensors")):
        return _in_file(path)
    folder = bundled_models().get(name)
    return _in_folder(folder, ema) if folder is not None else None


def bundled_models() -> dict[str, Path]:
    """The folders of the models that ship with this program, by name. Folder NAME_lr holds lrvdvae-NAME."""
    folders = [path.parent for path in sorted(bundled_folder("models").glob(f"*/{CONFIG_NAME}"))]
    return {_bundled_name(folder.name): folder for folder in folders}


def _bundled_name(folder: str) -> str:
    plain = folder.removesuffix(_LR_ENDING)
    return LR_PREFIX + plain if plain != folder else folder


def _in_file(path: Path, remedy: str = "") -> WeightSource:
    if not is_file(path):
        what = "is no file" if exists(path) else "does not exist"
        raise InputError(f"weights file {path} {what}; check the path.")
    if path.suffix == ".safetensors":
        described = is_file(path.parent / CONFIG_NAME)
        config, dataset = read_config(path.parent / CONFIG_NAME, remedy) if described else (None, None)
        return WeightSource(path, config, dataset, remedy=remedy)
    if path.suffix in TORCH_SUFFIXES:
        return WeightSource(path, published=PUBLISHED.get(published_name(path.name)))
    if path.suffix == ".toml":
        raise InputError(f"{path} is a preset, not weights; give it with --hps.")
    if path.suffix == ".json":
        raise InputError(f"{path} holds settings, not weights; give its folder.")
    raise InputError(f"{path} is no file of weights; give one that ends in .th or .safetensors.")


def _in_folder(folder: Path, ema: bool) -> WeightSource:
    if is_folder(folder / CHECKPOINTS):
        folder = newest_checkpoint(folder)
    remedy = _remedy_for(folder)
    listed = listed_digests(folder)
    both = is_file(folder / EMA_NAME) or EMA_NAME in listed
    name = EMA_NAME if both and ema else WEIGHTS_NAME
    if is_file(folder / name):
        found = read_config(folder / CONFIG_NAME, remedy)
        return WeightSource(folder / name, *found, averaged=ema if both else None, remedy=remedy)
    if name in listed:
        raise InputError(f"{folder / name} is missing, though {DIGESTS_NAME} lists it; {remedy or 'copy it there'}.")
    if complete_checkpoints(folder):
        raise InputError(
            f"folder {folder} holds a run's checkpoints; give the run, {folder.parent}, for the newest one, or one of "
            "them."
        )
    raise InputError(f"folder {folder} holds no {WEIGHTS_NAME}; give a folder of weights or a training run.")


def _remedy_for(folder: Path) -> str:
    """What a person can do if a file of `folder` is damaged; empty: the usual remedy."""
    if folder.parent.name == CHECKPOINTS:
        return "take an earlier checkpoint"
    if is_bundled_model(folder):
        return "install vdvae_lr again, or check its folder out again"
    return ""


def _in_repository(repository: str, access: HubAccess) -> WeightSource:
    config = repository_file(repository, CONFIG_NAME, access)
    same_commit = replace(access, revision=config.parent.name)
    optional_repository_file(repository, DIGESTS_NAME, same_commit)
    remedy = f"delete {config.parent} to fetch it again, or choose another --revision of repository {repository}"
    weights = repository_file(repository, WEIGHTS_NAME, same_commit)
    return WeightSource(weights, *read_config(config, remedy), repository=repository, remedy=remedy)


def _at_address(url: str, access: HubAccess) -> WeightSource:
    check_https(url)
    parts = urlsplit(url)
    name = parts.path.rpartition("/")[2]
    if Path(name).suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        shown = without_secrets(url)
        raise InputError(f"{shown} names no file of weights; give the address of a .th or .safetensors file.")
    folder = f"addresses/{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    path = asset_path(f"{folder}/{name}", access)
    check = read_tensors if path.suffix in TORCH_SUFFIXES else read_shapes
    fetch(url, path, "check the address, or give a file you have", check=check)
    if path.suffix in TORCH_SUFFIXES:
        return _in_file(path)
    config = asset_path(f"{folder}/{CONFIG_NAME}", access)
    beside = parts.path.removesuffix(name)
    if not config.exists():
        _fetch_digests(parts._replace(path=beside + DIGESTS_NAME).geturl(), config.with_name(DIGESTS_NAME))
    remedy = "put the config.json of these weights beside them"
    fetch(parts._replace(path=beside + CONFIG_NAME).geturl(), config, remedy, check=read_config)
    return _in_file(path, f"delete {path.parent} to fetch it again")


def _fetch_digests(url: str, target: Path) -> None:
    """Fetch the SHA256SUMS of weights at an address, if there is one."""
    for path in (target, record_of(target)):
        path.unlink(missing_ok=True)  # they belong to an earlier version of the weights
    with suppress(InputError):  # for instance if the server answers with a page that says "not found"
        fetch(url, target, "look for it", check=read_digests)


def read_state(source: WeightSource, model: LatentModel) -> dict[str, Tensor]:
    """The tensors of `source` under the names of `stored_tensors` of `model`, which may lie on the meta device.

    Raises InputError if the file is damaged, or if it does not hold exactly the model's tensors; in a safetensors
    file this is found before the tensors take memory.
    """
    check_listed_digest(source.path, source.remedy)
    if source.path.suffix in TORCH_SUFFIXES:
        state = from_published(model, read_tensors(source.path), source.path)
    else:
        shapes = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
        check_fit(shapes, read_shapes(source.path), source.path)
        state = read_weights(source.path)
    odd = next((name for name, tensor in state.items() if not tensor.is_floating_point()), None)
    if odd is not None:
        raise InputError(f"{source.path} holds '{odd}' as {state[odd].dtype}, which is no weight; fetch it again.")
    return state


def settings_of(source: WeightSource, given: Any = None) -> Any:
    """The model's settings, from the weights or the published model if these have them, else the given ones.

    Raises InputError if the settings are unknown, or if the given ones differ from those of the weights.
    """
    known = source.known_config
    if given is not None:
        check_same_settings(source, given)
    if known is not None or given is not None:
        return known if known is not None else given
    preset = preset_by_shapes(read_tensors(source.path)) if source.path.suffix in TORCH_SUFFIXES else ""
    hint = f"; its tensors have {preset}'s shapes, which do not tell its data maps" if preset else ""
    raise InputError(
        f"{source.path} comes without its model's settings{hint}; name the preset it was trained with (--hps, in "
        "Python config=)."
    )


def check_same_settings(source: WeightSource, ours: Any) -> None:
    """Refuse settings that differ from those of the weights, if these are known (raises InputError)."""
    theirs = source.known_config
    if theirs is None or theirs == ours:
        return
    if type(theirs) is not type(ours):
        raise InputError(
            f"{source.path} is a {class_name(theirs)}, not a {class_name(ours)}; use weights of that class."
        )
    name = next(name for name in vars(theirs) if getattr(theirs, name) != getattr(ours, name))
    raise InputError(
        f"{source.path} is a model with other settings ({name} {getattr(theirs, name)!r}, here "
        f"{getattr(ours, name)!r}); use the preset it was trained with, or none."
    )
