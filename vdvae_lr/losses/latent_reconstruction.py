"""Latent Reconstruction: decode z to x̂, encode x̂, and ask for z back (Song, Kim, Lee; docs/method.md).

    L_LR = E_{p(x|z)}[−log q(z|x)] = Σ_l E[−log q(z_l | z_<l, x̂)]

by the chain rule: group l is re-encoded given the original z_<l. Each form of the loss is a function of a group's
latent z, its re-encoded posterior N(μ', σ'²) and its prior N(μ_p, σ_p²), summed over the group's elements for each
image. Lower is better in all of them.

Shapes: B batch, L latent groups; a group's tensors are (B, …).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.losses.elbo import all_gaussians, all_groups, per_image
from vdvae_lr.model.gaussian import DiagonalGaussian

FormName = Literal["information", "nll", "standardised", "raw"]
TargetGradient = Literal["constant", "live"]
Form = Callable[[Tensor, DiagonalGaussian, DiagonalGaussian], Tensor]


def information(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """log p(z_l|z_<l) − log q(z_l|z_<l, x̂): minus the nats about z that the image gives back."""
    return prior.log_prob(latent) - reencoded.log_prob(latent)


def nll(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """−log q(z_l|z_<l, x̂) in nats. If the prior is constant, its gradients are those of `information`; its value
    depends on the scale of z.
    """
    return -reencoded.log_prob(latent)


def standardised(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """((μ' − z)/σ_p)²: the paper's squared error if the prior is N(0, I). It is 1 or more for a latent that cannot be
    recovered.
    """
    return ((reencoded.mean - latent) * (-prior.log_scale).exp()).square()


def raw(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """(μ' − z)²: the paper's formula to the letter."""
    return (reencoded.mean - latent).square()


FORMS: Mapping[FormName, Form] = {"information": information, "nll": nll, "standardised": standardised, "raw": raw}


def latent_reconstruction(
    latents: Sequence[Tensor],
    reencoded: Sequence[DiagonalGaussian],
    priors: Sequence[DiagonalGaussian],
    form: FormName = "information",
    target: TargetGradient = "constant",
) -> Tensor:
    """L_LR of every image, (B,): the sum over groups of `group_latent_reconstruction`."""
    values = FORMS[form](*_with_gradient(target, all_groups(latents), all_gaussians(reencoded), all_gaussians(priors)))
    return per_image(values)


def group_latent_reconstruction(
    latents: Sequence[Tensor],
    reencoded: Sequence[DiagonalGaussian],
    priors: Sequence[DiagonalGaussian],
    form: FormName = "information",
    target: TargetGradient = "constant",
) -> Tensor:
    """L_LR of every image and group: (B, L); nats for `information` and `nll`, squares for the others.

    With a `constant` target, z and the prior are given in E_{p(x|z)}[−log q(z|x)], and get no gradient. With a `live`
    target both get one, as in a plain transcription of the formula. Only one of them live is not offered: z and σ_p
    could then shrink together and lower a squared form, with nothing gained.
    """
    values = [FORMS[form](*_with_gradient(target, *group)) for group in zip(latents, reencoded, priors, strict=True)]
    return torch.stack([per_image(value) for value in values], dim=1)


def _with_gradient(
    target: TargetGradient, latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian
) -> tuple[Tensor, DiagonalGaussian, DiagonalGaussian]:
    if target == "constant":
        return latent.detach(), reencoded, prior.map(Tensor.detach)
    return latent, reencoded, prior
