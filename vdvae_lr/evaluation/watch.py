"""What a run watches of its latents while it trains: two passes over a few held-out images.

Shapes: B images, C channels, H W resolution, L latent groups.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from vdvae_lr.evaluation.activity import ACTIVE_VARIANCE, ActiveUnits, LatentStatistics, mean_path
from vdvae_lr.evaluation.batches import EvaluationBatch, ExampleNoise, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE, require_examples
from vdvae_lr.evaluation.information import information_nats
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import Measurement, measurements
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World


@dataclass(frozen=True)
class WatchedLatents:
    """What the latents do, on the images watched."""

    recovered_information: Measurement
    """Nats/dim that a sampled image gives back of the latents: minus LR's `information` form, as
    `recovery.measure_recovery` measures it.
    """
    active_latents: ActiveUnits | None
    """Latents whose posterior mean varies over the images by at least `ACTIVE_VARIANCE`; None below two images."""
    active_channels: ActiveUnits | None
    """The same of channels, each with its positions' average variance."""

    @property
    def images(self) -> int:
        """How many were watched."""
        return self.recovered_information.images


@torch.inference_mode()
def watch_latents(model: LatentModel, batches: Iterable[EvaluationBatch], *, seed: int, world: World) -> WatchedLatents:
    """Recovered information and active units over all examples of all processes' `batches`, each read once.

    Args:
        model: on its device.
        batches: this process's share of the images.
        seed: of the noise, with the example's number; latents are those that `evaluate_bound` draws.
        world: whose processes' shares are put together; all of them must call this.

    Raises:
        InputError: there was no example at all.
    """
    noise = ExampleNoise(model, POSTERIOR_NOISE, seed, image=True)
    information = Moments((1,), model.device)
    statistics = LatentStatistics(model.latent_shapes, model.device)
    for batch in batches:
        levels, draws = levels_for(model, batch.pixels), noise.draw(batch.indices)
        passed = model.infer(levels, draws.posterior, keep_contexts=True)
        information.add(information_nats(model, passed, passed.decoded("sample", draws.image))[:, None])
        statistics.add(*mean_path(model, levels))
    information.all_reduce_(world)
    statistics.all_reduce_(world)
    require_examples(information)
    (recovered,) = measurements(information, 1 / model.dimensions)
    enough = statistics.examples > 1
    latents, channels = (
        statistics.active(unit, ACTIVE_VARIANCE, relative=False) if enough else None for unit in ("latents", "channels")
    )
    return WatchedLatents(recovered, latents, channels)
