"""How much an image says about the latents that made it, in nats.

Everything here is an average of log q(z|x) − log p(z) = Σ_l log q(z_l|z_<l, x) − log p(z_l|z_<l). What makes it a bound
or not is where z and x come from, so the two measurements have two names:

- information from samples (here): z ~ p(z), x ~ p(x|z) rounded to pixel levels. Then E[log q(z|x) − log p(z)] ≤ I(Z;X),
  the paper's eq. 5 with H(Z) and L_LR taken together, sample by sample.
- recovered information (`recovery.py`): z ~ q(z|x) of data and its decoded image: minus the LR loss. No bound on
  anything.

Shapes: B images, L latent groups, C channels, H W resolution.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise, model_device
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import GroupMoments, Quantity, group_resolutions
from vdvae_lr.losses.latent_reconstruction import group_latent_reconstruction
from vdvae_lr.losses.objective import LatentPass
from vdvae_lr.losses.vdvae_pass import describe_pass
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.logistic_mixture import MixtureNoise
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.vdvae.decoder import Given
from vdvae_lr.model.vdvae.vae import VDVAE

DecodedImage = Literal["mean", "sample"]
SAMPLE_NOISE = "information"  # the purpose in the noise key: every measurement of eq. 5 makes the same samples


def group_information_nats(passed: LatentPass, image: Tensor) -> Tensor:
    """log q(z_l|z_<l, image) − log p(z_l|z_<l) of a pass's latents: nats, (B, L); images are on the target scale."""
    return -group_latent_reconstruction(passed.latents, passed.reencode(image), passed.priors, "information")


def information_nats(passed: LatentPass, image: Tensor) -> Tensor:
    """log q(z|image) − log p(z) of a pass's latents: nats, (B,); images (B, C, H, W) are on the target scale."""
    return group_information_nats(passed, image).sum(1)


def read_by(other: VDVAE, passed: LatentPass) -> LatentPass:
    """The same pass, its images re-encoded by another model of the same architecture: q_other(z_l | z_<l, x̂).

    Latents, priors and likelihood stay those of the model that made the pass, so that eq. 5 with z from its prior is a
    lower bound on its own I(Z;X), as it is with any q. Costs one top-down pass of `other`, its latents given.
    """
    given = other.top_down([Given(latent) for latent in passed.latents], len(passed.latents[0]), keep_states=True)

    def reencode(image: Tensor) -> tuple[DiagonalGaussian, ...]:
        return other.reencode(given, image)

    return replace(passed, reencode=reencode)


def decoded_image(passed: LatentPass, image: DecodedImage, noise: MixtureNoise | None) -> Tensor:
    """x̂ of a pass, (B, C, H, W) on the target scale and not rounded, as training sees it.

    Raises:
        ValueError: a sampled image without noise.
    """
    if image == "mean":
        return passed.likelihood.mean()
    if noise is None:
        raise ValueError("a sampled image needs noise")
    return passed.likelihood.sample(noise)


def model_sample(model: VDVAE, noise: PassNoise, batch: int) -> tuple[LatentPass, Tensor]:
    """A pass with z ~ p(z), from `noise` with prior and image draws, and images (B, C, H, W) sampled from p(x|z) and
    rounded to the data's levels.
    """
    passed = describe_pass(model, model.generate(batch, noise.prior, keep_states=True))
    return passed, model.pixel_scale.round_target(decoded_image(passed, "sample", noise.image))


@torch.inference_mode()
def measure_information_from_samples(model: VDVAE, measuring: Measuring, before: VDVAE | None = None) -> list[Quantity]:
    """A lower bound on I(Z;X) under the model by latent group, from its own samples; and as another encoder reads them.

    The paper's eq. 5. Sample number i is the same whatever its batch and process.

    Args:
        model: on the world's device.
        measuring: as many samples as it has images.
        before: a model of the same architecture; None leaves the second quantity out.
    """
    noise = ExampleNoise(model, SAMPLE_NOISE, measuring.seed, prior=True, image=True)
    readers = 1 if before is None else 2
    moments = [GroupMoments(group_resolutions(model), model_device(model)) for _ in range(readers)]
    for shard in measuring.samples("information from samples"):
        passed, image = model_sample(model, noise.draw(shard), len(shard))
        moments[0].add(group_information_nats(passed, image))
        if before is not None:
            moments[1].add(group_information_nats(read_by(before, passed), image))
    names = (
        ("information_from_samples", "information in the model's own samples (eq. 5)"),
        ("information_from_samples_before", "eq. 5, read by the encoder before fine-tuning"),
    )
    quantities = []
    for averages, (key, title) in zip(moments, names, strict=False):
        averages.all_reduce_(measuring.world)
        quantities.append(averages.quantity(key, title, "nats/dim", 1 / model.config.dimensions))
    return quantities
