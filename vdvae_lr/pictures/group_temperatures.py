"""Temperatures of the prior: one for all latent groups, one for each, or some by resolution.

| written             | meaning                                                        |
|---------------------|----------------------------------------------------------------|
| `0.9`               | every group's prior scale times 0.9                            |
| `1,1,0.9,…`         | one number for each group, top-down                            |
| `16x16:0.8,32:0.7`  | one number for the groups at a resolution; 1 at the others     |

Shapes: L latent groups.
"""

import math
import re
from collections.abc import Sequence
from numbers import Real

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.group_choice import describe_groups, parse_resolution

_PAIR = re.compile(r"(\d{1,6})(?:x(\d{1,6}))?:(.*)", re.ASCII)
Temperature = float | Sequence[float] | str
"""A number for all groups, a number for each, or text from the table above."""


def group_temperatures(temperature: Temperature, resolutions: Sequence[int]) -> tuple[float, ...]:
    """The factor of the prior's scale in each group, top-down: (L,).

    Args:
        temperature: a number, L numbers, or text from the table above.
        resolutions: the resolution of each of the model's groups, top-down: (L,).

    Raises:
        InputError: the text is not in the table, the count is not L, a number is negative or not finite, or no group
            has the resolution.
    """
    if isinstance(temperature, str):
        pieces = [piece.strip() for piece in temperature.split(",")]
        if any(":" in piece for piece in pieces):
            return _by_resolution(pieces, resolutions)
        values = [_number(piece) for piece in pieces]
        temperature = values if len(values) > 1 else values[0]
    if isinstance(temperature, float | Real):
        return (_checked(float(temperature)),) * len(resolutions)
    try:
        factors = tuple(float(value) for value in temperature)
    except (TypeError, ValueError):
        raise InputError(
            f"temperature cannot be a {type(temperature).__name__} like this; give a number, one number for each "
            "latent group, or text such as '16x16:0.8'."
        ) from None
    if len(factors) != len(resolutions):
        count = "1 temperature" if len(factors) == 1 else f"{len(factors)} temperatures"
        raise InputError(
            f"{count} for {len(resolutions)} latent groups: {describe_groups(resolutions)}; give one for all, one for "
            "each, or RESOLUTION:TEMPERATURE pairs."
        )
    return tuple(map(_checked, factors))


def _by_resolution(pieces: Sequence[str], resolutions: Sequence[int]) -> tuple[float, ...]:
    chosen = {}
    for piece in pieces:
        found = _PAIR.fullmatch(piece)
        if found is None:
            raise InputError(f"temperature: '{piece}' is no RESOLUTION:TEMPERATURE pair; write 16x16:0.8,32x32:0.7.")
        chosen[parse_resolution(f"{found[1]}x{found[2] or found[1]}", resolutions)] = _number(found[3])
    return tuple(chosen.get(resolution, 1.0) for resolution in resolutions)


def _number(text: str) -> float:
    try:
        return _checked(float(text))
    except ValueError:
        raise InputError(
            f"temperature '{text}' is no number; write 0.9, or pairs such as 16x16:0.8,32x32:0.7."
        ) from None


def _checked(value: float) -> float:
    if not 0 <= value < math.inf:
        raise InputError(f"temperature is {value:g}; it must be 0 (the prior's mean) or more.")
    return value
