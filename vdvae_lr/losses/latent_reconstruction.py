"""Latent Reconstruction: decode z to x̂, encode x̂, and ask for z back (Song, Kim, Lee; docs/method.md).

    L_LR = E_{p(x|z)}[−log q(z|x)] = Σ_l E[−log q(z_l | z_<l, x̂)]        by the chain rule, group l re-encoded given
    the original z_<l

Each form is one small function of a group's latent z, its re-encoded posterior N(μ', σ'²) and its prior N(μ_p, σ_p²).
Values are summed over the group's elements, per image. Lower is better in all of them.

Shapes: B batch, L latent groups; a group's tensors are (B, …).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.losses.elbo import per_image
from vdvae_lr.model.gaussian import DiagonalGaussian

FormName = Literal["information", "nll", "standardised", "raw"]
TargetGradient = Literal["constant", "live"]
Form = Callable[[Tensor, DiagonalGaussian, DiagonalGaussian], Tensor]


def information(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """log p(z_l|z_<l) − log q(z_l|z_<l, x̂): minus the nats about z that the image gives back; 0 for a latent it cannot
    give back.
    """
    return prior.log_prob(latent) - reencoded.log_prob(latent)


def nll(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """−log q(z_l|z_<l, x̂) alone, in nats: `information`'s gradients when the prior is constant, but a value that knows
    z's scale.
    """
    return -reencoded.log_prob(latent)


def standardised(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """((μ' − z)/σ_p)²: the paper's squared error where the prior is N(0, I); its floor is 1 for a latent that cannot be
    recovered.
    """
    return ((reencoded.mean - latent) * (-prior.log_scale).exp()).square()


def raw(latent: Tensor, reencoded: DiagonalGaussian, prior: DiagonalGaussian) -> Tensor:
    """(μ' − z)²: the paper's formula to the letter."""
    return (reencoded.mean - latent).square()


FORMS: Mapping[FormName, Form] = {"information": information, "nll": nll, "standardised": standardised, "raw": raw}


def group_latent_reconstruction(
    latents: Sequence[Tensor],
    reencoded: Sequence[DiagonalGaussian],
    priors: Sequence[DiagonalGaussian],
    form: FormName = "information",
    target: TargetGradient = "constant",
) -> Tensor:
    """L_LR of every image and group: (B, L); nats for `information` and `nll`, squares for the others.

    With a `constant` target, z and the prior are what is *given* in E_{p(x|z)}[−log q(z|x)] and carry no gradient.
    `live` lets gradients into both, as a plain transcription of the formula would. There is no half-live mixture: a
    prior with no fixed scale lets z and σ_p shrink together, which lowers a half-live squared form for nothing.
    """
    if target == "constant":
        latents = [latent.detach() for latent in latents]
        priors = [prior.detach() for prior in priors]
    function = FORMS[form]
    return torch.stack(
        [per_image(function(z, q, p)) for z, q, p in zip(latents, reencoded, priors, strict=True)], dim=1
    )
