"""SA-VAE's refinement: the encoder's posterior, improved for each image by steps on its bound (Kim et al. 2018).

The gradient goes through the steps. The published code estimates it by finite differences; here it is exact. Each step
looks at one draw of the latents. The draws' noise is a fixed sequence, the same for every image, so that q(z|x) is a
function of x: a step that saw the noise of the draw it is judged by would not give a bound.

Shapes: B images, Z latents; latents are (B, Z, 1, 1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.noise import noise_key

NegativeElbo = Callable[[DiagonalGaussian, Tensor, Tensor], Tensor]
"""−ELBO in nats (B,), from a posterior, its noise (1, Z, 1, 1) and the images."""
_LARGEST_GRADIENT = 250.0
"""Norm for each image, of the mean's gradient and of the log-variance's: the published 5, of a mean over 50 images."""


def refinement_noise(steps: int, latents: int) -> Tensor:
    """The noise of all steps, (steps, Z, 1, 1): independent draws, each followed by its mirror image."""
    generator = torch.Generator().manual_seed(noise_key("refinement", steps, latents))
    draws = torch.randn((steps + 1) // 2, latents, 1, 1, generator=generator)
    return torch.stack([draws, -draws], dim=1).flatten(0, 1)[:steps]


def refined(
    posterior: DiagonalGaussian,
    negative_elbo: NegativeElbo,
    noise: Tensor,
    images: Tensor,
    *,
    rate: float,
    momentum: float,
) -> DiagonalGaussian:
    """The posterior after one step of gradient descent with momentum for each row of `noise`.

    Steps move the mean and the log-variance, as published. Works under `inference_mode`, too.

    Args:
        posterior: the encoder's.
        negative_elbo: what the steps lower.
        noise: (steps, Z, 1, 1).
        images: (B, …), in the form that `negative_elbo` takes.
        rate: length of a step, in nats of one image.
        momentum: share of the last step that the next one repeats.
    """
    values = [posterior.mean, 2 * posterior.log_scale]
    learning = torch.is_grad_enabled() and any(value.requires_grad for value in values)
    with torch.inference_mode(False), torch.enable_grad():
        if not learning:
            values = [value.detach().clone().requires_grad_() for value in values]
            images = images.detach().clone()  # a tensor of inference mode cannot take part
        speeds = [torch.zeros_like(value) for value in values]
        for draw in noise:
            mean, log_variance = values
            cost = negative_elbo(DiagonalGaussian(mean, 0.5 * log_variance), draw[None], images).sum()
            gradients = [_shortened(g) for g in torch.autograd.grad(cost, values, create_graph=learning)]
            speeds = [momentum * speed - gradient for speed, gradient in zip(speeds, gradients, strict=True)]
            values = [value + rate * speed for value, speed in zip(values, speeds, strict=True)]
            if not learning:
                values = [value.detach().requires_grad_() for value in values]
        mean, log_variance = values if learning else [value.detach() for value in values]
    return DiagonalGaussian(mean, 0.5 * log_variance)


def _shortened(gradient: Tensor) -> Tensor:
    """The gradient (B, Z, 1, 1), with every image's norm at most `_LARGEST_GRADIENT`."""
    norm = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
    return gradient * (_LARGEST_GRADIENT / norm.clamp(min=_LARGEST_GRADIENT))
