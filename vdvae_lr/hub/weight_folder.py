"""A folder of weights: `model.safetensors`, the model's settings in `config.json`, and their digests.

Folders of `save_pretrained`, bundled models and checkpoints all have these files.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import check_listed_digest
from vdvae_lr.files.network_errors import plain
from vdvae_lr.files.paths import cannot_be_read
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.setting_checks import checked_dataclass

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
DEFAULT_CLASS = "VDVAE"
"""The class of a config.json that names none."""
_LARGEST_CONFIG = 1 << 20  # bytes
_CONFIGS: dict[str, type] = {DEFAULT_CLASS: VAEConfig}
"""The dataclass of the settings by model class. A file only names its class: no code comes with it."""


def make_known(name: str, config: type) -> None:
    """Accept weights of the class called `name`, whose settings are of the dataclass `config`."""
    _CONFIGS[name] = config


def class_name(config: Any) -> str:
    """The name of the class that is built from these settings."""
    return next(name for name, kind in _CONFIGS.items() if kind is type(config))


def write_config(folder: Path, config: Any, dataset: str) -> None:
    """Write `config.json`: the model's settings, the data set it was trained on, and its class if it is no VDVAE."""
    content: dict[str, Any] = {"model": dataclasses.asdict(config), "dataset": dataset}
    if class_name(config) != DEFAULT_CLASS:
        content["class"] = class_name(config)
    (folder / CONFIG_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_config(path: Path, remedy: str = "") -> tuple[Any, str]:
    """The model's settings and its data set's name, from a `config.json`.

    `remedy` is what a person can do if the file differs from the SHA256SUMS beside it. Raises InputError if the file is
    missing or damaged, is not JSON, or has settings or values that no model has.
    """
    if path.is_file():
        check_listed_digest(path, remedy)
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError
        content = json.loads(path.read_text(encoding="utf-8"))
        model, dataset = dict(content["model"]), content["dataset"]
        name = content.get("class", DEFAULT_CLASS)
        if not isinstance(dataset, str) or not isinstance(name, str):
            raise ValueError
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing, so the weights beside it have no settings; fetch the whole folder."
        ) from None
    except PermissionError as error:
        raise cannot_be_read(path, error) from None
    except (KeyError, TypeError, ValueError, RecursionError, OSError):  # ValueError: not JSON, or not text
        raise InputError(
            f"{path} is not a model's settings (JSON with 'model' and 'dataset'); fetch it again."
        ) from None
    if name not in _CONFIGS:
        raise InputError(
            f"{path} describes a model of class {name!r:.100}, which is not known here; run the command through the "
            "file that defines it (python FILE.py COMMAND …), or import that file first (docs/your_model.md)."
        )
    try:
        return checked_dataclass(_CONFIGS[name], model, "model"), dataset
    except InputError as error:
        raise InputError(f"{path} describes no model that can be made: {plain(str(error))}") from None


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """The buffers in a model's state by name, such as the running statistics of batch normalisation.

    Those of another number format than the weights' are left out, such as counts and flags: training and files do not
    keep them.
    """
    kept, formats = model.state_dict().keys(), {parameter.dtype for parameter in model.parameters()}
    buffers = ((name, buffer) for name, buffer in model.named_buffers() if name in kept)
    return {name: buffer for name, buffer in buffers if buffer.dtype in formats and buffer.numel()}


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a file of a model's weights holds: its parameters and its running statistics, by name."""
    return dict(model.named_parameters()) | running_statistics(model)


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that every user who may enter the folder can read; raises OSError."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)
    except SafetensorError as error:  # raised for a full disk
        raise OSError(str(error)) from None
    path.chmod(0o644)  # the library writes files that only their owner can read


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which cannot run code (raises InputError if it is missing or damaged)."""
    with _readable(path):
        return load_file(path)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a safetensors file by name, from its header (raises InputError as `read_weights`)."""
    with _readable(path), safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 # no mapping


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with path.open("rb"):  # the library reports a file without permission as missing
            pass
        yield
    except FileNotFoundError:
        raise InputError(f"weights file {path} does not exist; check the path.") from None
    except PermissionError as error:
        raise cannot_be_read(f"weights file {path}", error) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"weights file {path} is damaged ({error}); fetch or make it again.") from None


def check_fit(shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path | str) -> None:
    """Refuse the tensors of a file if names or shapes differ from the model's (raises InputError)."""
    details = [f"'{name}' is missing" for name in sorted(shapes.keys() - found.keys())]
    details += [f"'{name}' is not part of this model" for name in sorted(found.keys() - shapes.keys())]
    changed = [name for name in sorted(shapes.keys() & found.keys()) if found[name] != shapes[name]]
    details += [f"'{name}' has shape {found[name]}, not {shapes[name]}" for name in changed]
    if details:
        raise InputError(f"{path} does not fit the model ({plain(details[0])}); use the settings it was saved with.")


def checksum(tensors: Iterable[Tensor]) -> int:
    """A number from every bit of float32 tensors; processes compare it to see that they have the same weights."""
    sums = [tensor.contiguous().view(torch.int32).sum(dtype=torch.int64) for tensor in tensors]
    return hash(tuple(torch.stack(sums).tolist())) % 2**62  # Python hashes integers alike in every process


def check_finite(model: nn.Module, name: str) -> None:
    """Refuse a model with a weight that is NaN or infinite: one such weight spoils every result.

    Waits for the device once, however many tensors the model has. Raises InputError, which calls the weights `name` and
    names the first tensor with such a weight.
    """
    tensors = stored_tensors(model)
    finite = [torch.isfinite(tensor).all() for tensor in tensors.values()]
    if not finite or torch.stack(finite).all():
        return
    bad = next(tensor for tensor, sound in zip(tensors, finite, strict=True) if not sound)
    raise InputError(
        f"weights '{name}' hold numbers that are not finite (the first in tensor '{bad}'); take an earlier checkpoint, "
        "or other weights."
    )
