"""Temperatures in words: one for all latent groups, one for each, or some by resolution.

| words             | meaning                                                             |
|-------------------|---------------------------------------------------------------------|
| `0.9`             | every group's prior scale times 0.9                                 |
| `1,1,0.9,…`       | one number for each group, top-down                                 |
| `16x16:0.8,32:0.7` | groups at these resolutions; 1 at the others                        |

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
"""For all groups, for each, or in words."""


def group_temperatures(temperature: Temperature, resolutions: Sequence[int]) -> tuple[float, ...]:
    """One factor of the prior's scale for each group, top-down: (L,).

    Args:
        temperature: a number, L numbers, or words of the module's table.
        resolutions: of the model's groups, top-down: (L,).

    Raises:
        InputError: words that are none, another number of numbers, a negative one, or a resolution without groups.
    """
    if isinstance(temperature, str):
        return _parsed(temperature, resolutions)
    if isinstance(temperature, float | Real):
        return (_checked(float(temperature)),) * len(resolutions)
    try:
        values = [float(value) for value in temperature]
    except (TypeError, ValueError):
        raise InputError(
            f"temperature is no such {type(temperature).__name__}; give a number, one for each latent group, or words "
            "such as '16x16:0.8'."
        ) from None
    return _by_group([_checked(value) for value in values], resolutions)


def _parsed(text: str, resolutions: Sequence[int]) -> tuple[float, ...]:
    pieces = [piece.strip() for piece in text.split(",")]
    if not any(":" in piece for piece in pieces):
        values = [_number(piece) for piece in pieces]
        return _by_group(values if len(values) > 1 else values * len(resolutions), resolutions)
    by_resolution = {}
    for piece in pieces:
        found = _PAIR.fullmatch(piece)
        if found is None:
            raise InputError(f"temperature: '{piece}' is no RESOLUTION:TEMPERATURE pair; write 16x16:0.8,32x32:0.7.")
        resolution = parse_resolution(f"{found[1]}x{found[2] or found[1]}", resolutions)
        by_resolution[resolution] = _number(found[3])
    return tuple(by_resolution.get(resolution, 1.0) for resolution in resolutions)


def _by_group(values: Sequence[float], resolutions: Sequence[int]) -> tuple[float, ...]:
    if len(values) != len(resolutions):
        number = "1 temperature" if len(values) == 1 else f"{len(values)} temperatures"
        raise InputError(
            f"{number} for {len(resolutions)} latent groups: {describe_groups(resolutions)}; give one for all, one for "
            "each, or RESOLUTION:TEMPERATURE pairs."
        )
    return tuple(values)


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
