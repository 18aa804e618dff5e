"""What a training run records about its latents: passes over a few held-out images, and as many samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.evaluation.activity import ACTIVE_VARIANCE, ActiveUnits, ActivityReader
from vdvae_lr.evaluation.batches import ExampleNoise, Seen, Statistic, read_passes
from vdvae_lr.evaluation.bound import require_examples
from vdvae_lr.evaluation.information import INFORMATION_NOISE, information_nats, sampled_pairs
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import Measurement
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World


@dataclass(frozen=True)
class WatchedLatents:
    """Measurements of the latents on the watched images."""

    recovered_information: Measurement
    """Nats/dim: minus LR's `information` form on sampled images, as `RecoveryReader` measures it."""
    information_from_samples: Measurement
    """Nats/dim: eq. 5 on as many of the model's own samples, as `measure_information_from_samples` has it."""
    active_latents: ActiveUnits | None
    """Latents whose posterior mean varies over the images by at least `ACTIVE_VARIANCE`; None below two images."""
    active_channels: ActiveUnits | None
    """The same for channels; a channel's variance is the average over its positions."""

    @property
    def images(self) -> int:
        """The number of watched images."""
        return self.recovered_information.images


class _Recovered:
    """The nats about the latents that a sampled image gives back. It needs passes with kept contexts."""

    def __init__(self, model: LatentModel) -> None:
        self._model = model
        self.moments = Moments((1,), model.device)
        self.statistics: Sequence[Statistic] = [self.moments]

    def add(self, seen: Seen) -> None:
        image = seen.passed.decoded("sample", seen.image_noise)
        self.moments.add(information_nats(self._model, seen.passed, image)[:, None])


class _FromSamples:
    """The nats about the latents that the encoder finds in the model's own samples, one for each image."""

    def __init__(self, model: LatentModel, seed: int) -> None:
        self._model = model
        self._noise = ExampleNoise(model, INFORMATION_NOISE, seed, prior=True, image=True)
        self.moments = Moments((1,), model.device)
        self.statistics: Sequence[Statistic] = [self.moments]

    def add(self, seen: Seen) -> None:
        passed, image = sampled_pairs(self._model, self._noise.draw(seen.examples))
        self.moments.add(information_nats(self._model, passed, image)[:, None])


def watch_latents(model: LatentModel, batches: Iterable[Batch], *, seed: int, world: World) -> WatchedLatents:
    """Recovered information, eq. 5 and active units; arguments as `read_passes` has them.

    Raises:
        InputError: there is no image at all.
    """
    recovered, sampled, activity = _Recovered(model), _FromSamples(model, seed), ActivityReader(model)
    read_passes(model, batches, [recovered, sampled, activity], seed=seed, world=world, reencoding=True)
    require_examples(recovered.moments)
    (information,), (own,) = (each.moments.measurements(1 / model.dimensions) for each in (recovered, sampled))
    enough = activity.examples > 1
    latents, channels = (activity.active(unit, ACTIVE_VARIANCE) if enough else None for unit in ("latents", "channels"))
    return WatchedLatents(information, own, latents, channels)
