"""Lagging VAE's schedule: the encoder is trained ahead of the decoder while that helps (He et al. 2019).

While it lasts, an iteration is a turn of the encoder and then one update of the decoder alone, as in the published
code. The turn ends when the mean loss of ten updates is above that of the ten before, or after `encoder_steps` updates.
After every epoch, or every `encoder_check_iters` iterations, the mutual information of held-out images and their
latents is measured. When it has been below its highest value `encoder_patience` times, the schedule is over, and every
iteration is one update of both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from vdvae_lr.training.optim import OptimisationSettings

_COMPARED = 10  # updates
ENCODER, DECODER = (True, False), (False, True)
"""What an update moves, as `Optimiser.step` takes it."""


@dataclass(frozen=True)
class EncoderFirst:
    """Where the schedule stands between iterations; every process has the same."""

    encoder_updates: int = 0
    """Updates of the encoder alone since the start of the run."""
    most_information: float = 0.0
    """The highest mutual information so far, in nats/dim."""
    failures: int = 0
    """How many measurements were below the highest one before them."""
    over: bool = False
    """Whether the schedule has ended."""

    def after_measurement(self, information: float, settings: OptimisationSettings) -> "EncoderFirst":
        """Where it stands after a measurement of the mutual information in nats/dim."""
        if information >= self.most_information:
            return replace(self, most_information=information)
        failures = self.failures + 1
        return replace(self, failures=failures, over=failures >= settings.encoder_patience)


def encoder_turn(update: Callable[[int], float], most: int) -> int:
    """Update the encoder until its loss rises, or `most` times; returns how often.

    Args:
        update: makes update 0, 1, … of the turn, and returns its loss.
        most: 1 or more.
    """
    previous, loss = math.inf, 0.0
    for number in range(most):
        loss += update(number)
        if (number + 1) % _COMPARED == 0:
            if not loss / _COMPARED <= previous:
                return number + 1
            previous, loss = loss / _COMPARED, 0.0
    return most
