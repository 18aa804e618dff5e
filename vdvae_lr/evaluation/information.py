"""How much an image says about the latents that made it, in nats.

Everything here is an average of log q(z|x) − log p(z) = Σ_l log q(z_l|z_<l, x) − log p(z_l|z_<l). What makes it a bound
or not is where z and x come from, so the two measurements have two names:

- information from samples (here): z ~ p(z), x ~ p(x|z) rounded to pixel levels. Then E[log q(z|x) − log p(z)] ≤ I(Z;X),
  the paper's eq. 5 with H(Z) and L_LR taken together, sample by sample.
- recovered information (`recovery.py`): z ~ q(z|x) of data and its decoded image: minus the LR loss. No bound on
  anything.

Shapes: B images, L latent groups, C channels, H W resolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings, GroupMoments
from vdvae_lr.losses.latent_reconstruction import group_latent_reconstruction
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.model.noise import PassNoise

INFORMATION_NOISE = "information"  # the purpose in the noise key: every measurement of eq. 5 makes the same samples


def group_information_nats(passed: LatentPass, reencoded: Sequence[DiagonalGaussian]) -> Tensor:
    """log q(z_l|z_<l, x̂) − log p(z_l|z_<l) of a pass's latents, from their posteriors given x̂: nats, (B, L)."""
    return -group_latent_reconstruction(passed.latents, reencoded, passed.priors, "information")


def information_nats(model: LatentModel, passed: LatentPass, image: Tensor) -> Tensor:
    """log q(z|x̂) − log p(z) of a pass with kept contexts: nats, (B,); x̂ (B, C, H, W) is on the target scale."""
    return group_information_nats(passed, model.reencode(passed, image)).sum(1)


def model_sample(model: LatentModel, noise: PassNoise, batch: int) -> tuple[LatentPass, Tensor]:
    """A pass with z ~ p(z), from `noise` with prior and image draws, and images (B, C, H, W) sampled from p(x|z) and
    rounded to the data's levels.
    """
    passed = model.generate(batch, noise.prior, keep_contexts=True)
    return passed, model.pixel_scale.round_target(passed.decoded("sample", noise.image))


@torch.inference_mode()
def measure_information_from_samples(
    model: LatentModel, measuring: Measuring, before: LatentModel | None = None
) -> Findings:
    """A lower bound on I(Z;X) under the model by latent group, from its own samples; and as another encoder reads them.

    The paper's eq. 5. Sample number i is the same whatever its batch and process.

    Args:
        model: on the world's device.
        measuring: as many samples as it has images.
        before: a model of the same architecture; None leaves the second quantity out.
    """
    noise = ExampleNoise(model, INFORMATION_NOISE, measuring.seed, prior=True, image=True)
    readers = 1 if before is None else 2
    moments = [GroupMoments(model.resolutions, model.device) for _ in range(readers)]
    for shard in measuring.samples("information from samples"):
        passed, image = model_sample(model, noise.draw(shard), len(shard))
        moments[0].add(group_information_nats(passed, model.reencode(passed, image)))
        if before is not None:
            read = before.reencode(before.decode(passed.latents, keep_contexts=True), image)
            moments[1].add(group_information_nats(passed, read))
    names = (
        ("information_from_samples", "information in the model's own samples (eq. 5)"),
        ("information_from_samples_before", "eq. 5, read by the encoder before fine-tuning"),
    )
    quantities = []
    for averages, (key, title) in zip(moments, names, strict=False):
        averages.all_reduce_(measuring.world)
        quantities.append(averages.quantity(key, title, "nats/dim", 1 / model.dimensions))
    return Findings(quantities)
