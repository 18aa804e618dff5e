"""Whether weights are numbers at all: one NaN among them makes a NaN of everything that is measured or drawn."""

import torch
from torch import nn

from vdvae_lr.errors import InputError


def check_finite(model: nn.Module, name: str) -> None:
    """Refuse a model with a weight that is NaN or infinite; one wait for the device, whatever the number of tensors.

    Args:
        model: on any device.
        name: what the person called it.

    Raises:
        InputError: names the first such tensor.
    """
    tensors = model.state_dict()
    if not tensors:
        return
    sound = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()])
    if sound.all():
        return
    bad = next(tensor for tensor, finite in zip(tensors, sound.tolist(), strict=True) if not finite)
    raise InputError(
        f"weights '{name}' hold numbers that are not finite (the first in tensor '{bad}'); take an earlier checkpoint, "
        "or other weights."
    )
