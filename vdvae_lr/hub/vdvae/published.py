"""The published VDVAEs (Child 2020): addresses of their files, results, and training settings.

The code's licence is MIT; the weights' own terms are not stated. Addresses and results come from the published README.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.download import check_https, fetch
from vdvae_lr.files.hub_client import HubAccess, asset_path, check_hub_name, pull_elsewhere, repository_file
from vdvae_lr.files.paths import is_file, is_folder
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.torch_files import load_pickle, read_tensors
from vdvae_lr.hub.vdvae.tensors import published_shapes
from vdvae_lr.model.vdvae.vae import VAEConfig, VeryDeepVAE
from vdvae_lr.setting_checks import checked_dataclass

SERVER = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets"
FileKind = Literal["model-ema", "model", "opt"]
"""Averaged weights, weights before averaging, state of apex FusedAdam."""


@dataclass(frozen=True)
class PublishedModel:
    """One published model.

    Attributes:
        preset: preset with the settings that it was trained with.
        stem: what the names of its files on the server begin with.
        complete: the weights before averaging and the optimiser's state are published, too.
        bound: published −ELBO on the test split.
        unit: unit of `bound`.
        last_digit: last digit of `bound`; half of it is the rounding error.
    """

    preset: str
    stem: str
    complete: bool
    bound: float
    unit: Literal["nats/dim", "bits/dim"]
    last_digit: float

    def file_name(self, kind: FileKind) -> str:
        """Name of a file on the server, without its folder."""
        return f"{self.stem.rpartition('/')[2]}-{kind}.th"

    def config(self) -> VAEConfig:
        """The model's settings, from its preset."""
        names = {field.name for field in dataclasses.fields(VAEConfig)}
        values = {name: value for name, value in read_presets(self.preset).items() if name in names}
        return checked_dataclass(VAEConfig, values, f"preset {self.preset}")

    @property
    def dataset(self) -> str:
        """The data it was trained on, by the name that `--dataset` takes."""
        return str(read_presets(self.preset)["dataset"])


_CIFAR10 = "vdvae-assets-2/cifar10"
PUBLISHED: dict[str, PublishedModel] = {
    "ffhq256": PublishedModel("ffhq256", "vdvae-assets/ffhq256-iter-1700000", True, 0.4232, "nats/dim", 0.0001),
    "ffhq1024": PublishedModel("ffhq1024", "vdvae-assets/ffhq1024-iter-1700000", True, 1.678, "nats/dim", 0.001),
    "imagenet32": PublishedModel(
        "imagenet32", "vdvae-assets/imagenet32-iter-1700000", True, 2.6364, "nats/dim", 0.0001
    ),
    "imagenet64": PublishedModel("imagenet64", "vdvae-assets-2/imagenet64-iter-1600000", True, 2.44, "nats/dim", 0.01),
    "cifar10-seed0": PublishedModel("cifar10", f"{_CIFAR10}-seed0-iter-900000", False, 2.879, "bits/dim", 0.001),
    "cifar10-seed1": PublishedModel("cifar10", f"{_CIFAR10}-seed1-iter-1050000", False, 2.842, "bits/dim", 0.001),
    "cifar10-seed2": PublishedModel("cifar10", f"{_CIFAR10}-seed2-iter-650000", False, 2.898, "bits/dim", 0.001),
    "cifar10-seed3": PublishedModel("cifar10", f"{_CIFAR10}-seed3-iter-1050000", False, 2.864, "bits/dim", 0.001),
}
KNOWN_SHA256: dict[str, str] = {}
"""Known digests by file name. None is published, so the first download of a file records its digest."""


def published_name(text: str) -> str:
    """The published model that `text` names, or whose file of weights has that name; empty: none."""
    files = {model.file_name(kind): name for name, model in PUBLISHED.items() for kind in ("model-ema", "model")}
    return text if text in PUBLISHED else files.get(Path(text).name, "")


def preset_by_shapes(tensors: Mapping[str, Tensor]) -> str:
    """The preset of the published model that has tensors of these names and shapes; empty: none."""
    found = {name.removeprefix("module."): tuple(tensor.shape) for name, tensor in tensors.items()}
    for preset, model in {model.preset: model for model in PUBLISHED.values()}.items():
        with torch.device("meta"):
            candidate = VeryDeepVAE(model.config())
        if published_shapes(candidate) == found:
            return preset
    return ""


def published_file(name: str, kind: FileKind, mirror: str = "", access: HubAccess | None = None) -> Path:
    """A file of the published model `name` on this machine, downloaded if needed.

    `mirror` is a folder, an https address or a Hub repository with the files under their names; empty: the official
    server. `access` says how to reach the Hub, if the mirror is a repository there. Raises InputError if there is no
    such file, or if it cannot be fetched.
    """
    model = PUBLISHED[name]
    if kind != "model-ema" and not model.complete:
        what = {"model": "weights before averaging", "opt": "optimiser state"}[kind]
        raise InputError(f"of '{name}' only the averaged weights are published, no {what}; leave that setting out.")
    file_name = model.file_name(kind)
    if mirror and is_folder(Path(mirror)):
        path = Path(mirror) / file_name
        if not is_file(path):
            raise InputError(f"{path} does not exist; put the published file there, or leave --weights_mirror out.")
        return path
    check_hub_name(mirror)
    pull = [name, *(["--everything"] if kind != "model-ema" else []), *(["--weights_mirror", mirror] if mirror else [])]
    if mirror and "://" not in mirror:
        if mirror.count("/") != 1:
            raise InputError(
                f"mirror '{mirror}' is no folder here; give one, an https address or a Hub repository (OWNER/NAME) as "
                "--weights_mirror."
            )
        with pull_elsewhere(*pull):
            return repository_file(mirror, file_name, access or HubAccess())
    if mirror:
        check_https(mirror)
    url = f"{mirror.rstrip('/')}/{file_name}" if mirror else f"{SERVER}/{model.stem}-{kind}.th"
    remedy = f"try again later, or name another source of {file_name} with --weights_mirror"
    check = load_pickle if kind == "opt" else read_tensors
    with pull_elsewhere(*pull):
        target = asset_path(f"published/{file_name}", access or HubAccess())
        return fetch(url, target, remedy, KNOWN_SHA256.get(file_name), check=check)
