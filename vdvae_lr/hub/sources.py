"""From what a person calls some weights to files on this machine, fetched where needed.

| given                                     | what it is                                                            |
|-------------------------------------------|-----------------------------------------------------------------------|
| `DIR` with config.json, model.safetensors | weights saved by this program                                         |
| `DIR` of a run, or one of its checkpoints | the newest, or that, checkpoint                                       |
| `FILE.th`                                 | published format                                                      |
| `FILE.safetensors`                        | our names; settings from the config.json beside it                    |
| `fashion`                                 | a model that ships with this program (`models/`)                      |
| `ffhq256`, `cifar10-seed0`, …             | a published VDVAE, from its official address or `weights_mirror`      |
| `lrvdvae-ffhq256`, …                      | a VDVAE fine-tuned with LR, from `lr_repository`                      |
| `https://…/FILE.th`, `….safetensors`      | such a file, and for safetensors the config.json beside it            |
| `OWNER/NAME`                              | a Hub repository with config.json and model.safetensors               |
"""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.bundled import bundled_folder, is_bundled_model
from vdvae_lr.files.digests import DIGESTS_NAME, check_listed_digest, listed_digests, read_digests
from vdvae_lr.files.download import check_https, fetch, record_of
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import exists, expanded, is_file, is_folder
from vdvae_lr.files.run_folder import CHECKPOINTS, EMA_NAME, newest_checkpoint
from vdvae_lr.hub.hub_client import (
    HubAccess,
    asset_path,
    optional_repository_file,
    prepare_cached,
    pull_elsewhere,
    repository_file,
)
from vdvae_lr.hub.openai import from_published, published_shapes, read_tensors
from vdvae_lr.hub.published import PUBLISHED, PublishedModel, published_file
from vdvae_lr.hub.weight_folder import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_fit,
    read_config,
    read_config_file,
    read_shapes,
    read_weights,
)
from vdvae_lr.hub.weight_names import check_hub_name, folder_without_weights, no_file_of_weights
from vdvae_lr.model.vdvae.vae import VDVAE, VAEConfig
from vdvae_lr.setting_checks import PathText, check_settings

LR_PREFIX = "lrvdvae-"
MIRROR_VARIABLE = "VDVAE_LR_MIRROR"
LR_REPOSITORY_VARIABLE = "VDVAE_LR_REPOSITORY"
_PICKLES = (".th", ".pt")
_BESIDE = (CONFIG_NAME, DIGESTS_NAME)  # files that belong to a file of weights at an address
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class WeightSettings:
    """Where weights come from."""

    revision: str = ""
    """Branch, tag or commit, where the weights are a Hub repository; empty: its default branch."""
    weights_mirror: PathText = ""
    """Where published files are found by name: a folder, an https address, or a Hub repository. Empty: the environment
    variable VDVAE_LR_MIRROR, else the official server."""
    lr_repository: str = ""
    """Hub repository of the weights called lrvdvae-NAME; {name} in it stands for NAME (somebody/lrvdvae-{name}). Empty:
    the environment variable VDVAE_LR_REPOSITORY."""

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)

    @property
    def mirror(self) -> str:
        """The setting, or else the environment's (raises InputError for a home folder that is not known)."""
        return self.weights_mirror or expanded(os.environ.get(MIRROR_VARIABLE, ""), MIRROR_VARIABLE)

    def lr_repository_of(self, name: str) -> str:
        """The repository of `lrvdvae-NAME` (raises InputError where none is set)."""
        pattern = self.lr_repository or os.environ.get(LR_REPOSITORY_VARIABLE, "")
        if not pattern:
            raise InputError(
                f"'{LR_PREFIX}{name}' is looked for in a Hub repository that nobody named; set --lr_repository or "
                f"{LR_REPOSITORY_VARIABLE}, such as somebody/{LR_PREFIX}{{name}}."
            )
        return pattern.replace("{name}", name)


@dataclass(frozen=True)
class WeightSource:
    """Weights on this machine, and the settings that came with them.

    Attributes:
        path: of the file.
        config, dataset: what its config.json says; None for published files.
        published: the published model it is, if its name says so.
        repository: of the Hub, where it came from one.
        averaged: whether these are averaged weights; None: nothing says so.
        remedy: what a person can do where the file is not the one that its folder's digests list, as the end of a
            sentence; empty: what helps for any folder.
    """

    path: Path
    config: VAEConfig | None = None
    dataset: str | None = None
    published: PublishedModel | None = None
    repository: str = ""
    averaged: bool | None = None
    remedy: str = field(default="", compare=False)

    @property
    def known_config(self) -> VAEConfig | None:
        """The settings that came along, or of the published model that it is."""
        return self.config or (self.published.config() if self.published is not None else None)


def find_weights(
    name: str, settings: WeightSettings | None = None, *, ema: bool = True, access: HubAccess | None = None
) -> WeightSource:
    """Resolve `name`, and fetch what is not on this machine; reads no tensor.

    Args:
        name: see the module's table.
        settings: where names are looked up.
        ema: the averaged weights, where there are also those before averaging (runs, published models).
        access: to the Hub; its revision wins over the settings'.

    Raises:
        InputError: nothing of that name, or it cannot be fetched, with what to do about it.
    """
    if not name:
        raise InputError("the name of the weights is empty; give a name, a file, a folder or a Hub repository.")
    name = expanded(name)
    settings = settings or WeightSettings()
    access = access or HubAccess(revision=settings.revision or None)
    if not exists(Path(name)):
        check_hub_name(name)
    local = _on_this_machine(name, ema)
    if local is None and name.startswith(LR_PREFIX):
        with pull_elsewhere(name, *_pull_options(settings, access)):
            return _in_repository(settings.lr_repository_of(name.removeprefix(LR_PREFIX)), access)
    if local is None and "://" not in name and _REPOSITORY.fullmatch(name):
        if is_folder(Path(name).parent):  # more likely a folder's name with a slip in it than somebody's account
            raise InputError(f"there is no folder {name}; check its name (to mean a Hub repository, start elsewhere).")
        with pull_elsewhere(name, *_pull_options(WeightSettings(), access)):
            return _in_repository(name, access)
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
    raise _unknown(name)


def _pull_options(settings: WeightSettings, access: HubAccess) -> list[str]:
    """The options with which `vdvae-lr pull` finds the same repository."""
    given = {"--revision": access.revision, "--lr_repository": settings.lr_repository}
    return [word for option, value in given.items() if value for word in (option, value)]


def _on_this_machine(name: str, ema: bool) -> WeightSource | None:
    path = Path(name)
    if is_folder(path):
        return _in_folder(path, ema)
    if exists(path) or ("://" not in name and path.suffix in (*_PICKLES, ".safetensors")):
        return _in_file(path)
    return _in_folder(bundled_folder("models") / name, ema) if name in bundled_models() else None


def bundled_models() -> list[str]:
    """Names of the models that ship with this program."""
    return sorted(path.parent.name for path in bundled_folder("models").glob(f"*/{CONFIG_NAME}"))


def _in_file(path: Path, remedy: str = "") -> WeightSource:
    if not is_file(path):
        what = "is no file" if exists(path) else "does not exist"
        raise InputError(f"weights file {path} {what}; check the path.")
    if path.suffix == ".safetensors":
        described = is_file(path.parent / CONFIG_NAME)
        config, dataset = read_config(path.parent, remedy) if described else (None, None)
        return WeightSource(path, config, dataset, remedy=remedy)
    if path.suffix in _PICKLES:
        return WeightSource(path, published=_published_by_file_name(path.name))
    raise no_file_of_weights(path)


def _in_folder(folder: Path, ema: bool) -> WeightSource:
    if is_folder(folder / CHECKPOINTS):
        folder = newest_checkpoint(folder)
    remedy = _remedy_for(folder)
    both = is_file(folder / EMA_NAME) or EMA_NAME in listed_digests(folder)
    name = EMA_NAME if both and ema else WEIGHTS_NAME
    if is_file(folder / name):
        return WeightSource(folder / name, *read_config(folder, remedy), averaged=ema if both else None, remedy=remedy)
    if name in listed_digests(folder):
        raise InputError(f"{folder / name} is missing, though {DIGESTS_NAME} lists it; {remedy or 'copy it there'}.")
    raise folder_without_weights(folder, WEIGHTS_NAME)


def _remedy_for(folder: Path) -> str:
    """What helps where a file of `folder` is damaged; empty: what helps for any folder."""
    if folder.parent.name == CHECKPOINTS:
        return "take an earlier checkpoint"
    if is_bundled_model(folder):
        return "install vdvae_lr again, or check its folder out again"
    return ""


def _in_repository(repository: str, access: HubAccess) -> WeightSource:
    config = repository_file(repository, CONFIG_NAME, access)
    same_commit = HubAccess(**(vars(access) | {"revision": config.parent.name}))
    optional_repository_file(repository, DIGESTS_NAME, same_commit)
    remedy = f"delete {config.parent} to fetch it again, or choose another --revision of repository {repository}"
    weights = repository_file(repository, WEIGHTS_NAME, same_commit)
    return WeightSource(weights, *read_config(config.parent, remedy), repository=repository, remedy=remedy)


def _at_address(url: str, access: HubAccess) -> WeightSource:
    check_https(url)
    parts = urlsplit(url)
    name = parts.path.rpartition("/")[2]
    if Path(name).suffix not in (*_PICKLES, ".safetensors"):
        shown = without_secrets(url)
        raise InputError(f"{shown} names no file of weights; give the address of a .th or .safetensors file.")
    folder = asset_path("addresses", hashlib.sha256(url.encode()).hexdigest()[:16])
    remedy = "check the address, or give a file you have"
    prepare_cached(folder / name, access)
    path = fetch(url, folder / name, remedy, check=read_tensors if name.endswith(_PICKLES) else read_shapes)
    if path.suffix in _PICKLES:
        return _in_file(path)
    prepare_cached(folder / CONFIG_NAME, access)
    beside = {each: parts._replace(path=parts.path.removesuffix(name) + each).geturl() for each in _BESIDE}
    if not (folder / CONFIG_NAME).exists():
        _fetch_digests(beside[DIGESTS_NAME], folder / DIGESTS_NAME)
    remedy = "put the config.json of these weights beside them"
    fetch(beside[CONFIG_NAME], folder / CONFIG_NAME, remedy, check=read_config_file)
    return _in_file(path, f"delete {folder} to fetch it again")


def _fetch_digests(url: str, target: Path) -> None:
    """Fetch the SHA256SUMS of weights at an address; nothing where there is none, or a page that says so."""
    for path in (target, record_of(target)):
        path.unlink(missing_ok=True)  # of an earlier version of the weights
    with suppress(InputError):
        fetch(url, target, "look for it", check=read_digests)


def _published_by_file_name(name: str) -> PublishedModel | None:
    names = {model.file_name(kind): model for model in PUBLISHED.values() for kind in ("model-ema", "model")}
    return names.get(name)


def _unknown(name: str) -> InputError:
    known = [*bundled_models(), *PUBLISHED]
    return InputError(
        f"there are no weights {name[:100]!r}{nearest_name_hint(name, known)}; give a file, a folder, a training run, "
        f"a Hub repository (OWNER/NAME), an https address, or one of {', '.join(known)}, {LR_PREFIX}NAME."
    )


def read_state(source: WeightSource, model: VDVAE) -> dict[str, Tensor]:
    """The tensors of `source` under `model`'s parameter names; every one of both is accounted for (raises InputError).

    `model` may lie on the meta device: what does not fit is refused before any memory is taken.
    """
    state = _fitting_state(source, model)
    odd = next((name for name, tensor in state.items() if not tensor.is_floating_point()), None)
    if odd is not None:
        raise InputError(f"{source.path} holds '{odd}' as {state[odd].dtype}, which is no weight; fetch it again.")
    return state


def _fitting_state(source: WeightSource, model: VDVAE) -> dict[str, Tensor]:
    check_listed_digest(source.path, source.remedy)
    if source.path.suffix in _PICKLES:
        return from_published(model, read_tensors(source.path), str(source.path))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    check_fit(shapes, read_shapes(source.path), str(source.path))
    return read_weights(source.path)


def checksum(state: Mapping[str, Tensor]) -> int:
    """Of every bit of float32 tensors: what processes compare to know that they loaded the same ones."""
    return (
        hash(tuple(int(tensor.contiguous().view(torch.int32).sum(dtype=torch.int64)) for tensor in state.values()))
        % 2**62
    )


def settings_of(source: WeightSource, given: VAEConfig | None = None) -> VAEConfig:
    """The model's settings: those that came with the weights, or are the published model's, else the given ones.

    Raises:
        InputError: none of these, or given ones that differ from those that came along.
    """
    known = source.known_config
    if known is not None and given is not None:
        check_same_settings(source, known, given)
    if known is not None:
        return known
    if given is not None:
        return given
    resembled = _published_by_shapes(read_tensors(source.path)) if source.path.suffix in _PICKLES else None
    hint = f"; its tensors have {resembled.preset}'s shapes, which do not tell its data maps" if resembled else ""
    raise InputError(
        f"{source.path} comes without its model's settings{hint}; name the preset it was trained with (--hps, in "
        "Python config=)."
    )


def check_same_settings(source: WeightSource, theirs: VAEConfig, ours: VAEConfig) -> None:
    """Refuse to use weights under other settings than theirs (raises InputError)."""
    if theirs != ours:
        name = next(name for name in vars(theirs) if getattr(theirs, name) != getattr(ours, name))
        raise InputError(
            f"{source.path} is a model with other settings ({name} {getattr(theirs, name)!r}, here "
            f"{getattr(ours, name)!r}); use the preset it was trained with, or none."
        )


def _published_by_shapes(tensors: Mapping[str, Tensor]) -> PublishedModel | None:
    found = {name.removeprefix("module."): tuple(tensor.shape) for name, tensor in tensors.items()}
    for model in {model.preset: model for model in PUBLISHED.values()}.values():
        with torch.device("meta"):
            candidate = VDVAE(model.config())
        if published_shapes(candidate) == found:
            return model
    return None
