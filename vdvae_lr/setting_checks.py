"""What settings may hold, said once beside their types and checked wherever settings are made.

A dataclass of settings calls `check_settings(self)` in its `__post_init__`. That covers the command line, presets,
files that come with weights, and Python alike. A field says what it may hold by its type:

    lr: Annotated[float, Between(0)]     a number from 0 up
    iters: Count                         a whole number from 1 up
    data_root: PathText                  text that names a file or folder, where `~` is the home folder

Without any such words a float is finite, an int has at most 64 bits, and a `Path` is treated like a `PathText`.
"""

import dataclasses
import math
import sys
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import expanded, path_of, without_nul


@dataclass(frozen=True)
class Between:
    """The range of a number, or of each number of a tuple."""

    least: float
    most: float = math.inf
    above: bool = False
    """Whether `least` itself is left out."""
    below: bool = False
    """Whether `most` itself is left out."""
    infinite: bool = False
    """Whether infinity means something. NaN never does."""

    @property
    def floor(self) -> str:
        """The lower end in words."""
        if self.above:
            return "positive" if self.least == 0 else f"above {self.least:,}"
        return f"{self.least:,} or more" if math.isfinite(self.least) else "a number"

    @property
    def ceiling(self) -> str:
        """The upper end in words."""
        return f"{'below' if self.below else 'at most'} {self.most:,}"

    def complaint(self, value: float) -> str:
        """How a number should be, in words; empty where it is so. NaN is in no range."""
        if not (value > self.least if self.above else value >= self.least):
            return self.floor
        return "" if (value < self.most if self.below else value <= self.most) else self.ceiling


class _NamesAPath:
    """Marks text that names a file or a folder, or that may do so."""


_MOST = 2**31 - 1  # so that times left, sums and sizes made of it stay within what clocks and tensors can say
_ANY_INT = Between(-(2**63), 2**63 - 1)  # what tensors and random generators take
_ANY_FLOAT = Between(-math.inf)

PathText = Annotated[str, _NamesAPath()]
"""Text that names a file or folder, or that may do so: a leading `~` is replaced by the home folder."""
Count = Annotated[int, Between(1, _MOST)]
CountOrNone = Annotated[int, Between(0, _MOST)]
AtOnce = Annotated[int, Between(1, 65_536)]
"""How many of something lie in memory at the same time."""
TrainingSeed = Annotated[int, Between(0, 2**63 - 1)]


def range_words(annotations: Iterable[object]) -> str:
    """The range of a number in words, from what its type is annotated with; empty where there is none."""
    between = next((word for word in annotations if isinstance(word, Between)), None)
    if between is None:
        return ""
    ends = [between.floor] if math.isfinite(between.least) else []
    ends += [between.ceiling] if between.most < _MOST else []
    return "".join(f", {words}" for words in ends) + (", or inf" if between.infinite else "")


def check_settings(settings: Any) -> None:
    """Check every field of a dataclass by its type, and replace `~` in paths; other types are left alone.

    Raises:
        InputError: a number out of its range, a float that is NaN, an infinity that means nothing, a path that no file
            can have, or text with a NUL character.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        checked = _checked(field.name, value, getattr(hints[field.name], "__metadata__", ()))
        if checked != value:
            object.__setattr__(settings, field.name, checked)  # also of a frozen dataclass: it is still being made


def _checked(name: str, value: Any, words: tuple[Any, ...]) -> Any:
    if isinstance(value, tuple):
        return tuple(_checked(name, each, words) for each in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(name, value, next((word for word in words if isinstance(word, Between)), None))
    elif isinstance(value, Path):
        return path_of(value, name)
    elif isinstance(value, str):
        names_a_path = any(isinstance(word, _NamesAPath) for word in words)
        return expanded(value, name) if names_a_path else without_nul(value, name)
    return value


def _check_number(name: str, value: float, between: Between | None) -> None:
    between = between or (_ANY_INT if isinstance(value, int) else _ANY_FLOAT)
    complaint = between.complaint(value)
    # compared, not converted: a whole number may be larger than any float
    if not complaint and not between.infinite and abs(value) > sys.float_info.max:
        complaint = "finite"
    if complaint:
        raise InputError(f"{name} is {_short(value)}; it must be {complaint}.")


def _short(value: float) -> str:
    return str(value) if abs(value) < 10**30 or isinstance(value, float) else "far too large"
