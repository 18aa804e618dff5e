"""Converts published VDVAE weight files (.th) to this project's parameter names, and back.

A published file is a state dict, written by `torch.save`. `*-model.th` was saved from the distributed wrapper, so its
keys begin with `module.`; `*-model-ema.th` was not. Only the first convolution of a posterior network has another
layout: published, one weight over concat(state, feature); here, one weight for each of the two (`TwoInputBottleneck`).
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import first_line, plain
from vdvae_lr.files.paths import cannot_be_read
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.vdvae.vae import VeryDeepVAE

_CONVOLUTIONS = {"c1": "reduce", "c2": "mix_1", "c3": "mix_2", "c4": "expand"}
_WRAPPER_PREFIX = "module."


@dataclass(frozen=True)
class Correspondence:
    """A published tensor, and the parameters that it holds here, side by side along dimension 1."""

    published: str
    ours: tuple[str, ...]


def correspondences(model: LatentModel) -> Iterator[Correspondence]:
    """Every parameter of `model`, in the published order, by which the published optimiser's state is indexed.

    Raises:
        InputError: the model is no VDVAE, so it has no published format.
    """
    if not isinstance(model, VeryDeepVAE):
        raise InputError(f"a {type(model).__name__} has no published format; use a folder of weights instead.")
    yield from _layer("encoder.in_conv", "encoder.image_input")
    for index in range(len(model.encoder.blocks)):
        yield from _bottleneck(f"encoder.enc_blocks.{index}", f"encoder.blocks.{index}.bottleneck")
    for name in ("gain", "bias"):
        yield Correspondence(f"decoder.{name}", (f"decoder.{name}",))
    for index in range(len(model.decoder.blocks)):
        published, ours = f"decoder.dec_blocks.{index}", f"decoder.blocks.{index}"
        for entry in _bottleneck(f"{published}.enc", f"{ours}.posterior"):
            second = (f"{ours}.posterior.reduce_feature.weight",) if entry.published.endswith("c1.weight") else ()
            yield Correspondence(entry.published, entry.ours + second)
        yield from _bottleneck(f"{published}.prior", f"{ours}.prior")
        yield from _layer(f"{published}.z_proj", f"{ours}.latent_projection")
        yield from _bottleneck(f"{published}.resnet", f"{ours}.residual")
    for index, resolution in enumerate(model.decoder.start_states):
        yield Correspondence(f"decoder.bias_xs.{index}", (f"decoder.start_states.{resolution}",))
    yield from _layer("decoder.out_net.out_conv", "mixture_output")


def _layer(published: str, ours: str) -> Iterator[Correspondence]:
    for kind in ("weight", "bias"):
        yield Correspondence(f"{published}.{kind}", (f"{ours}.{kind}",))


def _bottleneck(published: str, ours: str) -> Iterator[Correspondence]:
    for theirs, name in _CONVOLUTIONS.items():
        yield from _layer(f"{published}.{theirs}", f"{ours}.{name}")


def to_published(model: LatentModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours under the published names and shapes, in the published order.

    `state` may hold any tensors by our parameter names: weights, EMA weights, gradients.
    """
    return {
        entry.published: torch.cat([state[name] for name in entry.ours], dim=1)
        if len(entry.ours) > 1
        else state[entry.ours[0]]
        for entry in correspondences(model)
    }


def published_shapes(model: LatentModel) -> dict[str, tuple[int, ...]]:
    """The shape of every published tensor of a model, by published name."""
    with torch.device("meta"):
        state = {name: torch.empty(parameter.shape) for name, parameter in model.named_parameters()}
    return {name: tuple(tensor.shape) for name, tensor in to_published(model, state).items()}


def from_published(model: LatentModel, published: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A published state dict under our names. It must have exactly the model's tensors, each in the right shape.

    Args:
        model: gives names and shapes; it is not changed.
        published: tensors by published name, with or without the wrapper's `module.` prefix.
        source: its name in errors.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    tensors = {name.removeprefix(_WRAPPER_PREFIX): tensor for name, tensor in published.items()}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for entry in correspondences(model):
        if entry.published not in tensors:
            raise InputError(_misfit(source, f"tensor '{entry.published}' is missing"))
        tensor = tensors.pop(entry.published)
        pieces = split_like(tensor, [shapes[name] for name in entry.ours])
        if pieces is None:
            detail = f"'{entry.published}' has shape {tuple(tensor.shape)}, which does not fit"
            raise InputError(_misfit(source, detail))
        state.update(zip(entry.ours, pieces, strict=True))
    if tensors:
        raise InputError(_misfit(source, f"tensor '{next(iter(tensors))}' is not part of this model"))
    return state


def split_like(tensor: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...] | None:
    """Split a published tensor along dimension 1 into parameters of `shapes`; None if the shapes do not fit."""
    first = shapes[0]
    whole = torch.Size([first[0], sum(shape[1] for shape in shapes), *first[2:]]) if len(shapes) > 1 else first
    if tensor.shape != whole:
        return None
    return tensor.split([shape[1] for shape in shapes], dim=1) if len(shapes) > 1 else (tensor,)


def _misfit(source: str, detail: str) -> str:
    return f"{source} holds weights of another model ({plain(detail)}); choose the --hps preset they were trained with."


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that `torch.save` wrote. No code in the file runs.

    Raises:
        InputError: the file is missing, cut, not a state dict, or a pickle that asks for more than tensors.
    """
    content = load_pickle(path)
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        inner = _nested_state_dict(content)
        if inner is not None:
            raise InputError(
                f"weights file {path} holds its state dict inside, under {inner}; save that alone, "
                f"torch.save(torch.load('{path.name}', weights_only=True)[{inner}], 'weights.th'), and give that."
            )
        raise InputError(
            f"weights file {path} holds no state dict (names to tensors); choose a *-model.th or *-model-ema.th file."
        )
    return dict(content)


def _nested_state_dict(content: object) -> str | None:
    """The key (as Python code) under which another program's checkpoint holds a state dict; None if there is none."""
    if not isinstance(content, Mapping):
        return None
    return next(
        (repr(key) for key, value in content.items() if isinstance(value, Mapping) and _is_state_dict(value)), None
    )


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def load_pickle(path: Path) -> Any:
    """The content of a file that `torch.save` wrote, if it consists of tensors and plain values. No code in it runs.

    Raises:
        InputError: the file is missing, cut, or a pickle that asks for more.
    """
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"weights file {path} does not exist; check the path.") from None
    except PermissionError as error:
        raise cannot_be_read(f"weights file {path}", error) from None
    except pickle.UnpicklingError:
        raise InputError(
            f"weights file {path} is damaged or asks to run code, so it was not loaded; "
            "fetch it again from a source you trust."
        ) from None
    except Exception as error:  # a damaged file can make torch.load raise nearly anything
        raise InputError(f"weights file {path} cannot be read ({first_line(error)}); fetch it again.") from None


def _check_sums(path: Path) -> None:
    """Check the CRC-32 sums that `torch.save` wrote into the file; `torch.load` ignores them.

    The format before torch 1.6 has no sums.

    Raises:
        ValueError, or an error of zipfile: the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not any(member.CRC for member in members):  # after torch.serialization.set_crc32_options(False)
            return
        if sum(member.file_size for member in members) > path.stat().st_size:  # torch compresses nothing
            raise ValueError("it announces more content than it has")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} in it is wrong")


def write_published(model: LatentModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Write `state` (our names) as a published-format `.th`, whole or not at all (raises InputError)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in to_published(model, state).items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(tensors, file)
