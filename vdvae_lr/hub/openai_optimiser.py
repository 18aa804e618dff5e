"""Reads the published optimiser files (`*-opt.th`), which hold apex FusedAdam's state, for AdamW.

Both optimisers keep the same two running averages, of the gradients and of their squares. Both decouple weight decay
and correct the averages' bias by the count of updates. So the numbers carry over unchanged. Only their place differs:

| | apex FusedAdam | here |
|---|---|---|
| averages | `state[i]` of the i-th parameter in the published order | by our parameter names |
| count of updates | once, `param_groups[0]["step"]` | once |
| learning rate, betas, weight decay | `param_groups[0]` | the run's settings; the file's values are ignored |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.hub.openai import correspondences, load_pickle, split_like
from vdvae_lr.model.latent_model import LatentModel

_KINDS = ("exp_avg", "exp_avg_sq")


def read_optimiser_state(path: Path, model: LatentModel) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """AdamW's averages by kind and parameter name, and the count of updates, a tensor of shape ().

    Raises:
        InputError: the file is missing, not an optimiser's state, or that of another model.
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
    entries = list(correspondences(model))
    if len(order) != len(entries):
        raise InputError(
            f"{path} is the optimiser state of another model: it has {len(order)} parameters, this one {len(entries)}; "
            "choose the file that was published with the weights."
        )
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    moments: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
    for entry, index in zip(entries, order, strict=True):
        for kind in _KINDS:
            tensor = _moment(state, index, kind, f"{path}, '{entry.published}'")
            pieces = split_like(tensor, [shapes[name] for name in entry.ours])
            if pieces is None:
                raise InputError(
                    f"{path} is the optimiser state of another model: '{entry.published}' has {kind} of shape "
                    f"{tuple(tensor.shape)}; choose the file that was published with the weights."
                )
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
