"""The maps between stored pixel levels, the model's input scale and the likelihood's target scale.

- levels: 0 … 255, as stored;
- input: `(level + shift) * scale`, roughly standardised: what the encoder reads;
- target: [−1, 1], `level / 127.5 − 1` after flooring to the likelihood's depth of `bits`.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PixelScale:
    """The maps between the three scales, for tensors of any shape."""

    bits: int
    shift: float
    scale: float

    @property
    def level_step(self) -> int:
        """Distance in 8-bit levels between neighbouring target values: 1 at 8 bits, 8 at 5 bits."""
        return 1 << (8 - self.bits)

    def input_from_levels(self, levels: Tensor) -> Tensor:
        """Floating-point levels → the encoder's input."""
        return (levels + self.shift) * self.scale

    def target_from_levels(self, levels: Tensor) -> Tensor:
        """Floating-point whole levels → targets in [−1, 1], floored to a multiple of `level_step` (as published)."""
        if self.level_step > 1:
            levels = (levels / self.level_step).floor() * self.level_step
        return (levels - 127.5) / 127.5

    def levels_from_target(self, target: Tensor) -> Tensor:
        """Images on the target scale → levels. Flooring had lowered them by (level_step − 1)/2 on average."""
        return (target + 1) * 127.5 + (self.level_step - 1) / 2

    def round_target(self, target: Tensor) -> Tensor:
        """The nearest values that a target can take."""
        highest = 256 - self.level_step
        index = ((target + 1) * 127.5 / self.level_step).round() * self.level_step
        return index.clamp(0, highest) / 127.5 - 1
