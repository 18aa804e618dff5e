"""The direction in weight space that changes the scale of a group's latents and nothing else.

A VDVAE learns its prior, so z_l has no unit. Multiply z_l, its prior and its posterior by s, and divide the projection
of the latent into the state by s: images and bound stay the same. A loss that falls along this direction rewards
shrinking (or growing) the latents, and nothing is gained. This is the scale trap.

Shapes: W width, Z latent channels, M bottleneck width.
"""

import torch
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE

Direction = dict[str, Tensor]
"""The direction for each parameter name. Parameters that are absent do not move."""


def scale_direction(model: VDVAE, group: int) -> Direction:
    """d weights / d log s at s = 1, for one group.

    In the last layers of prior and posterior, the rows of the means are multiplied by s, and log s is added to the
    biases of the log-scales. The projection's weight (W, Z, 1, 1) is divided by s. The other rows of the prior, which
    update the state, stay.
    """
    block, name = model.decoder.blocks[group], f"decoder.blocks.{group}"
    mean = slice(0, block.latent_channels)
    log_scale = slice(block.latent_channels, 2 * block.latent_channels)
    direction = {f"{name}.latent_projection.weight": -block.latent_projection.weight.detach()}
    for network in ("prior", "posterior"):
        layer = getattr(block, network).expand
        weight, bias = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
        weight[mean], bias[mean] = layer.weight.detach()[mean], layer.bias.detach()[mean]
        bias[log_scale] = 1.0
        direction |= {f"{name}.{network}.expand.weight": weight, f"{name}.{network}.expand.bias": bias}
    return direction


def norm_of(direction: Direction) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in direction.values()]).sum().sqrt()


def move(model: VDVAE, direction: Direction, step: float) -> None:
    """Add step · direction to the weights."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in direction.items():
            parameters[name].add_(tensor, alpha=step)


def scale_derivatives(model: VDVAE) -> Tensor:
    """The derivative of the loss along each group's scale direction, scaled to length 1: (L,).

    The gradients of the loss are in `.grad`. If a value is positive, the loss falls when the group's latents shrink.
    """
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters()}
    derivatives = []
    for group in range(len(model.decoder.blocks)):
        direction = scale_direction(model, group)
        products = [
            (gradients[name] * tensor).sum() for name, tensor in direction.items() if gradients[name] is not None
        ]
        derivatives.append(torch.stack(products).sum() / norm_of(direction))
    return torch.stack(derivatives)
