"""Converts the tensors of published VDVAE files (Child 2020) to this project's parameters, and back.

`*-model.th` was saved from the distributed wrapper, so its keys begin with `module.`; those of `*-model-ema.th` do not.
Only the first convolution of a posterior network has another layout: published, one weight over concat(state, feature);
here, one weight for each of the two (`TwoInputBottleneck`).

`*-opt.th` holds the state of apex FusedAdam. It keeps the same two running averages as AdamW, of the gradients and of
their squares. Both decouple weight decay and correct the averages' bias by the count of updates. So the numbers carry
over unchanged. Only their place differs:

| | apex FusedAdam | here |
|---|---|---|
| averages | `state[i]` of the i-th parameter in the published order | by our parameter names |
| count of updates | once, `param_groups[0]["step"]` | once |
| learning rate, betas, weight decay | `param_groups[0]` | the run's settings; the file's values are ignored |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import plain
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.hub.torch_files import load_pickle
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.vdvae.vae import VeryDeepVAE

_CONVOLUTIONS = {"c1": "reduce", "c2": "mix_1", "c3": "mix_2", "c4": "expand"}
_WRAPPER_PREFIX = "module."
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Correspondence:
    """A published tensor, and the parameters that it holds here, side by side along dimension 1."""

    published: str
    ours: tuple[str, ...]


def correspondences(model: LatentModel) -> Iterator[Correspondence]:
    """Every parameter of `model`, in the published order, which numbers the parameters of the optimiser's state.

    Raises InputError for a model that is no VDVAE, since it has no published format.
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
    """Tensors by our parameter names (weights, averages, gradients) under the published names, in that order."""
    joined = ((entry.published, [state[name] for name in entry.ours]) for entry in correspondences(model))
    return {name: torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0] for name, pieces in joined}


def published_shapes(model: LatentModel) -> dict[str, tuple[int, ...]]:
    """The shape of every published tensor of a model, by published name."""
    state = {name: torch.empty(parameter.shape, device="meta") for name, parameter in model.named_parameters()}
    return {name: tuple(tensor.shape) for name, tensor in to_published(model, state).items()}


def from_published(model: LatentModel, published: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Tensors by published name, with or without the wrapper's `module.` prefix, under our names.

    `model` gives names and shapes, and is not changed. Raises InputError, which names the file `path`, if a tensor is
    missing, unknown or of another shape.
    """

    def misfit(detail: str) -> InputError:
        remedy = "choose the --hps preset they were trained with"
        return InputError(f"{path} holds weights of another model ({plain(detail)}); {remedy}.")

    tensors = {name.removeprefix(_WRAPPER_PREFIX): tensor for name, tensor in published.items()}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for entry in correspondences(model):
        if entry.published not in tensors:
            raise misfit(f"tensor '{entry.published}' is missing")
        tensor = tensors.pop(entry.published)
        pieces = _split_like(tensor, [shapes[name] for name in entry.ours])
        if pieces is None:
            raise misfit(f"'{entry.published}' has shape {tuple(tensor.shape)}, which does not fit")
        state.update(zip(entry.ours, pieces, strict=True))
    if tensors:
        raise misfit(f"tensor '{next(iter(tensors))}' is not part of this model")
    return state


def _split_like(tensor: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...] | None:
    """Split a published tensor along dimension 1 into parameters of `shapes`; None if the shapes do not fit."""
    if len(shapes) == 1:
        return (tensor,) if tensor.shape == shapes[0] else None
    widths = [shape[1] for shape in shapes]
    return tensor.split(widths, dim=1) if tensor.shape == (shapes[0][0], sum(widths), *shapes[0][2:]) else None


def write_published(model: LatentModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Write `state` (our names) as a published-format `.th`, whole or not at all (raises InputError)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in to_published(model, state).items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(tensors, file)


def read_optimiser_state(path: Path, model: LatentModel) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """AdamW's averages by kind and parameter name, and the count of updates () from a `*-opt.th` file.

    Raises InputError if the file is missing, is not an optimiser's state, or is that of another model.
    """
    content = load_pickle(path)
    try:
        (group,), state = content["param_groups"], dict(content["state"])
        order, count = [int(index) for index in group["params"]], _update_count(group, state)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise InputError(
            f"{path} is no optimiser state of one group of parameters with a count of updates; choose a published "
            "*-opt.th file."
        ) from None

    def misfit(detail: str) -> InputError:
        return InputError(
            f"{path} is the optimiser state of another model: {detail}; choose the file that was published with the "
            "weights."
        )

    entries = list(correspondences(model))
    if len(order) != len(entries):
        raise misfit(f"it has {len(order)} parameters, this one {len(entries)}")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    moments: dict[str, dict[str, Tensor]] = {kind: {} for kind in _MOMENTS}
    for entry, index in zip(entries, order, strict=True):
        for kind in _MOMENTS:
            tensor = _moment(state, index, kind, f"{path}, '{entry.published}'")
            pieces = _split_like(tensor, [shapes[name] for name in entry.ours])
            if pieces is None:
                raise misfit(f"'{entry.published}' has {kind} of shape {tuple(tensor.shape)}")
            moments[kind].update(zip(entry.ours, pieces, strict=True))
    return moments, torch.tensor(float(count))


def _update_count(group: Mapping[str, Any], state: Mapping[Any, Any]) -> int:
    """The count of updates: apex stores one for the group, torch's own optimisers one for each parameter."""
    count = int(group["step"] if "step" in group else state[group["params"][0]]["step"])
    if count < 1:
        raise ValueError
    return count


def _moment(state: Mapping[Any, Any], index: Any, kind: str, where: str) -> Tensor:
    entry = state.get(index)
    tensor = entry.get(kind) if isinstance(entry, Mapping) else None
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise InputError(f"{where}: its {kind} is missing or not finite; fetch the file again.")
    return tensor.float()
