"""Products with the Jacobian of D(z), the mean image, and of the composite map E_μ∘D, at latents of B images.

D is the image that people see and that Latent Reconstruction re-encodes: clamped to [−1, 1], so an image number whose
mean lies beyond has derivative 0. Groups that are not varied keep their latents, as in the noise response: z_>l is not
regenerated from the prior that z_l changes. An image's own latents alone move it, so B images are one block-diagonal
map with one product a block.

A scale s (σ_p, or ones) multiplies every latent's displacement: the Jacobian's columns are in units of s.

Shapes: B images, Z latent channels, R a group's resolution, n varied latents, m image numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from vdvae_lr.evaluation.noise_response import mean_image
from vdvae_lr.model.vdvae.decoder import Given, TopDownBlock, TopDownPass
from vdvae_lr.model.vdvae.vae import VDVAE

Function = Callable[[Tensor], Tensor]


class Jacobian:
    """Products of a function's Jacobian, row by row.

    The reverse product is linear in its vector, so its own reverse product, with respect to that vector, is the forward
    one: both come from kept graphs, and the function is computed once.

    Args:
        function: (B, n) → (B, m), each row of the result from its own row alone.
        point: (B, n), where the derivatives are taken.
    """

    def __init__(self, function: Function, point: Tensor) -> None:
        self.inputs = point.shape[1]
        self._point = point.detach().clone().requires_grad_()
        with torch.enable_grad():
            self._result = function(self._point)
            self._cotangent = torch.zeros_like(self._result, requires_grad=True)
        self.value = self._result.detach()
        """The function at the point: (B, m)."""
        self.outputs = self.value.shape[1]

    @property
    def like(self) -> Tensor:
        """Of the vectors' number, type and device."""
        return self.value

    @cached_property
    def _pulled_back(self) -> Tensor:
        """Jᵀ u as a function of u: (B, n)."""
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(self._result, self._point, self._cotangent, create_graph=True)
        return pulled

    def forward(self, vectors: Tensor) -> Tensor:
        """J v for each row: (B, n) → (B, m)."""
        (product,) = torch.autograd.grad(self._pulled_back, self._cotangent, vectors, retain_graph=True)
        return product

    def adjoint(self, vectors: Tensor) -> Tensor:
        """Jᵀ u for each row: (B, m) → (B, n)."""
        (product,) = torch.autograd.grad(self._result, self._point, vectors, retain_graph=True)
        return product


@dataclass(frozen=True)
class LatentPoint:
    """Where the derivatives are taken: what is needed of a pass with kept states, without its graph."""

    latents: tuple[Tensor, ...]
    """(B, Z, R, R) a group."""
    states: tuple[Tensor, ...]
    """What each group's posterior network keeps of z_<l."""
    scales: tuple[Tensor, ...]
    """As `latents`: what one unit of displacement is."""

    @staticmethod
    def of(passed: TopDownPass, *, prior_scale: bool) -> "LatentPoint":
        """Displacements raw, or in units of the pass's σ_p.

        Raises:
            ValueError: a pass made without `keep_states`.
        """
        states = [group.reduced_state for group in passed.groups if group.reduced_state is not None]
        if len(states) < len(passed.groups):
            raise ValueError("the composite map needs a pass made with keep_states=True")
        scales = [group.prior.log_scale.detach().exp() for group in passed.groups]
        return LatentPoint(
            tuple(group.latent.detach() for group in passed.groups),
            tuple(state.detach() for state in states),
            tuple(scales if prior_scale else [torch.ones_like(scale) for scale in scales]),
        )

    @property
    def batch(self) -> int:
        """B."""
        return self.latents[0].shape[0]

    @property
    def sizes(self) -> list[int]:
        """Latents of every group."""
        return [latent[0].numel() for latent in self.latents]

    @property
    def flat_scales(self) -> Tensor:
        """(B, N)."""
        return torch.cat([scale.flatten(1) for scale in self.scales], dim=1)

    def with_rows(self, rows: Tensor) -> "LatentPoint":
        """The images with these numbers, in this order, any of them more than once."""
        return LatentPoint(
            tuple(latent[rows] for latent in self.latents),
            tuple(state[rows] for state in self.states),
            tuple(scale[rows] for scale in self.scales),
        )


def decoder_jacobian(model: VDVAE, point: LatentPoint, varied: Sequence[int]) -> Jacobian:
    """J of displacement (B, n) of the varied groups' latents ↦ D(z) (B, m)."""
    return Jacobian(_decoder(model, point, varied), _no_displacement(point, varied))


def _no_displacement(point: LatentPoint, varied: Sequence[int]) -> Tensor:
    return torch.cat([torch.zeros_like(point.latents[group]).flatten(1) for group in varied], dim=1)


def _decoder(model: VDVAE, point: LatentPoint, varied: Sequence[int]) -> Function:
    sizes = [point.sizes[group] for group in varied]

    def decode(displacement: Tensor) -> Tensor:
        latents = list(point.latents)
        for group, part in zip(varied, displacement.split(sizes, dim=1), strict=True):
            latents[group] = latents[group] + point.scales[group] * part.view_as(latents[group])
        return mean_image(model, model.top_down([Given(latent) for latent in latents], point.batch)).flatten(1)

    return decode


def posterior_means(model: VDVAE, point: LatentPoint, groups: Sequence[int], image: Tensor) -> Tensor:
    """E_μ: the groups' posterior means, each given its own z_<l, for images (B, m) on the target scale: (B, n)."""
    config = model.config
    shaped = image.view(-1, config.image_channels, config.image_size, config.image_size)
    features = model.encode_input(model.pixel_scale.input_from_target(shaped))
    means = []
    for group in groups:
        block = cast(TopDownBlock, model.decoder.blocks[group])
        posterior = block.posterior_from(point.states[group], features[model.decoder.stages[group].resolution])
        means.append(posterior.mean.flatten(1))
    return torch.cat(means, dim=1)


def deviation_jacobian(model: VDVAE, point: LatentPoint, group: int) -> Jacobian:
    """J_{E∘D} − I: that of displacement δ (B, n) of one group ↦ μ'(z + δ) − δ, in units of the scale."""
    decode = _decoder(model, point, [group])
    scale = point.scales[group].flatten(1)

    def deviation(displacement: Tensor) -> Tensor:
        return posterior_means(model, point, [group], decode(displacement)) / scale - displacement

    return Jacobian(deviation, _no_displacement(point, [group]))


def movable_numbers(image: Tensor) -> Tensor:
    """Which numbers of D(z) are not clamped: the others have derivative 0."""
    return image.abs() < 1
