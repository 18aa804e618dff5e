"""Lagging VAE's schedule: the encoder is trained ahead of the decoder while that helps (He et al. 2019).

While it lasts, updates of the encoder alone alternate with one update of the decoder alone. The encoder's turn ends
when the loss of its last ten updates is above that of the ten before, or after `encoder_steps` updates. After every
epoch of decoder updates the mutual information of the held-out images and their latents is measured. When it has
failed to rise `encoder_patience` times, the schedule is over, and every update is of both.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from vdvae_lr.processes.world import World
from vdvae_lr.training.optim import OptimisationSettings

_COMPARED = 10  # updates
ENCODER, DECODER = (True, False), (False, True)


@dataclass(frozen=True)
class EncoderFirst:
    """Where the schedule stands; every process has the same."""

    encoder_updates: int = 0
    """Since the decoder's last."""
    decoder_updates: int = 0
    """Since the start of the run."""
    encoder_is_done: bool = False
    """Whether the next update is the decoder's."""
    loss: float = 0.0
    """Sum over the encoder's updates since the last comparison."""
    previous_loss: float = math.inf
    """Mean of the last comparison."""
    most_information: float = 0.0
    """Of all measurements, in nats/dim."""
    failures: int = 0
    """Measurements that were lower than that."""
    over: bool = False

    @property
    def moving(self) -> tuple[bool, bool] | None:
        """What the next update moves, as `Optimiser.step` takes it."""
        if self.over:
            return None
        return DECODER if self.encoder_is_done else ENCODER

    def after_update(self, loss: float, settings: OptimisationSettings) -> "EncoderFirst":
        """Where it stands after the update that `moving` announced, whose loss this was."""
        if self.over:
            return self
        if self.encoder_is_done:
            return replace(
                self, encoder_is_done=False, encoder_updates=0, loss=0.0, previous_loss=math.inf,
                decoder_updates=self.decoder_updates + 1,
            )  # fmt: skip
        updates, loss = self.encoder_updates + 1, self.loss + loss
        done = updates >= settings.encoder_steps
        if updates % _COMPARED:
            return replace(self, encoder_updates=updates, loss=loss, encoder_is_done=done)
        mean = loss / _COMPARED
        done = done or not mean <= self.previous_loss
        return replace(self, encoder_updates=updates, loss=0.0, previous_loss=mean, encoder_is_done=done)

    def after_epoch(self, information: float, settings: OptimisationSettings) -> "EncoderFirst":
        """Where it stands after a measurement of the mutual information in nats/dim."""
        if information >= self.most_information:
            return replace(self, most_information=information)
        failures = self.failures + 1
        return replace(self, failures=failures, over=failures >= settings.encoder_patience)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return asdict(self) | {"previous_loss": _or_none(self.previous_loss)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "EncoderFirst":
        """The schedule that a checkpoint kept."""
        previous = state["previous_loss"]
        return cls(**state | {"previous_loss": math.inf if previous is None else previous})


def shared_loss(total: torch.Tensor, world: World) -> float:
    """The loss of the global batch, from each process's part; waits for the device."""
    return float(world.all_reduce_mean_(total.clone()))


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None  # JSON has no infinity
