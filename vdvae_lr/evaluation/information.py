"""How much an image says about the latents that made it, in nats.

Everything here is an average of log q(z|x) − log p(z) = Σ_l log q(z_l|z_<l, x) − log p(z_l|z_<l). Whether it is a bound
depends on where z and x come from, so the two measurements have two names:

- information from samples (here): z ~ p(z), and x ~ p(x|z) is rounded to pixel levels. Then E[log q(z|x) − log p(z)] ≤
  I(Z;X). This is the paper's eq. 5 with H(Z) and L_LR taken together, sample by sample.
- recovered information (`recovery.py`): z ~ q(z|x) of data, and x is its decoded image. It is minus the LR loss, and a
  bound on nothing.

Shapes: B images, L latent groups, C channels, H W resolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.moments import GroupMoments
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.task import Task
from vdvae_lr.losses.latent_reconstruction import group_latent_reconstruction
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass

INFORMATION_NOISE = "information"  # the purpose in noise keys: every measurement of eq. 5 makes the same samples


def group_information_nats(passed: LatentPass, reencoded: Sequence[DiagonalGaussian]) -> Tensor:
    """log q(z_l|z_<l, x̂) − log p(z_l|z_<l) of a pass's latents, from their posteriors given x̂: nats, (B, L)."""
    return -group_latent_reconstruction(passed.latents, reencoded, passed.priors, "information")


def information_nats(model: LatentModel, passed: LatentPass, image: Tensor) -> Tensor:
    """log q(z|x̂) − log p(z) of a pass with kept contexts: nats, (B,); x̂ (B, C, H, W) is on the target scale."""
    return group_information_nats(passed, model.reencode(passed, image)).sum(1)


@torch.inference_mode()
def measure_information_from_samples(task: Task) -> Findings:
    """A lower bound on I(Z;X) under the model by latent group, from as many of its own samples as there are images.

    This is the paper's eq. 5. With a model before fine-tuning, a second quantity says how that model's encoder reads
    the same samples.
    """
    model, measuring, before = task.model, task.measuring, task.before
    noise = ExampleNoise(model, INFORMATION_NOISE, measuring.seed, prior=True, image=True)
    own, others = (GroupMoments(model.resolutions, model.device) for _ in range(2))
    for numbers in measuring.samples("information from samples"):
        draws = noise.draw(numbers)
        passed = model.generate(len(numbers), draws.prior, keep_contexts=True)
        image = model.pixel_scale.round_target(passed.decoded("sample", draws.image))
        own.add(group_information_nats(passed, model.reencode(passed, image)))
        if before is not None:
            given = before.decode(passed.latents, keep_contexts=True)
            others.add(group_information_nats(passed, before.reencode(given, image)))
    described = [(own, "information_from_samples", "information in the model's own samples (eq. 5)")]
    if before is not None:
        key = "information_from_samples_before"
        described.append((others, key, "eq. 5, read by the encoder before fine-tuning"))
    quantities = []
    for moments, key, title in described:
        moments.all_reduce_(measuring.world)
        quantities.append(moments.quantity(key, title, "nats/dim", 1 / model.dimensions))
    return Findings(quantities)
