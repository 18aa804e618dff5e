"""Numbers and pixels for the discretised logistic mixture that reach every branch of its formula."""

import torch
from torch import Tensor

from vdvae_lr.model.logistic_mixture import MIN_LOG_SCALE, parameters_per_component


def mixture_inputs(channels: int, components: int, size: tuple[int, int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Numbers and pixels in float64 for (B, H, W) that reach every branch of the formula."""
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = size
    numbers = components * parameters_per_component(channels)
    parameters = torch.randn(batch, numbers, height, width, generator=generator, dtype=torch.float64)
    log_scales = parameters[:, components:].unflatten(1, (channels, -1, components))[:, :, 1]
    log_scales.mul_(3).sub_(3)
    log_scales[..., 0] = MIN_LOG_SCALE  # exactly there, the clamp passes the gradient on
    image = torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64).clamp(-1, 1)
    return parameters, image
