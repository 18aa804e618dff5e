"""What settings may hold: stated once by their types, and checked wherever settings are made.

A dataclass of settings calls `check_settings(self)` in its `__post_init__`. That covers the command line, presets,
files that come with weights, and Python alike. The type of a field states the range:

    lr: Annotated[float, Between(0)]     a number from 0 up
    iters: Count                         a whole number from 1 up
    data_root: PathText                  text that names a file or folder; `~` is the home folder

Without an annotation a float must be finite, an int has at most 64 bits, and a `Path` is treated like a `PathText`.
`check_types` checks plain values from JSON or TOML before a dataclass is made of them.
"""

import dataclasses
import datetime
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.paths import expanded, path_of, without_nul

T = TypeVar("T")


@dataclass(frozen=True)
class Between:
    """The range of a number, or of each number in a tuple."""

    least: float
    most: float = math.inf
    above: bool = False
    """The range excludes `least` itself."""
    below: bool = False
    """The range excludes `most` itself."""
    infinite: bool = False
    """Infinity is allowed. NaN never is."""

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
        """What a number outside the range should be, in words; empty for one inside. NaN is outside every range."""
        if not (value > self.least if self.above else value >= self.least):
            return self.floor
        return "" if (value < self.most if self.below else value <= self.most) else self.ceiling


class _NamesAPath:
    """Marks text that names, or may name, a file or folder."""


_MOST = 2**31 - 1  # times left, sums and sizes computed from it stay within what clocks and tensors can hold
_ANY_INT = Between(-(2**63), 2**63 - 1)  # what tensors and random generators take
_ANY_FLOAT = Between(-math.inf)

PathText = Annotated[str, _NamesAPath()]
"""Text that names, or may name, a file or folder. The home folder replaces a leading `~`."""
Count = Annotated[int, Between(1, _MOST)]
CountOrNone = Annotated[int, Between(0, _MOST)]
AtOnce = Annotated[int, Between(1, 65_536)]
"""How many of something lie in memory at the same time."""
TrainingSeed = Annotated[int, Between(0, 2**63 - 1)]


def range_words(annotations: Iterable[object]) -> str:
    """The range of a number in words, from the annotations of its type; empty if they state none."""
    between = next((word for word in annotations if isinstance(word, Between)), None)
    if between is None:
        return ""
    ends = [between.floor] if math.isfinite(between.least) else []
    ends += [between.ceiling] if between.most < _MOST else []
    return "".join(f", {words}" for words in ends) + (", or inf" if between.infinite else "")


def check_settings(settings: Any) -> None:
    """Check the number, path or text in every field of a dataclass, and replace `~` in paths.

    Raises:
        InputError: a number outside its range, a float that is NaN, an infinity that is not allowed, a path that no
            file can have, or text with a NUL character.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        checked = _checked(field.name, value, getattr(hints[field.name], "__metadata__", ()))
        if checked != value:
            object.__setattr__(settings, field.name, checked)  # works for a frozen dataclass, too


def _checked(name: str, value: Any, annotations: tuple[Any, ...]) -> Any:
    if isinstance(value, tuple):
        return tuple(_checked(name, each, annotations) for each in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(name, value, next((word for word in annotations if isinstance(word, Between)), None))
    elif isinstance(value, Path):
        return path_of(value, name)
    elif isinstance(value, str):
        names_a_path = any(isinstance(word, _NamesAPath) for word in annotations)
        return expanded(value, name) if names_a_path else without_nul(value, name)
    return value


def _check_number(name: str, value: float, between: Between | None) -> None:
    between = between or (_ANY_INT if isinstance(value, int) else _ANY_FLOAT)
    complaint = between.complaint(value)
    # Compare instead of converting: an int may be larger than any float.
    if not complaint and not between.infinite and abs(value) > sys.float_info.max:
        complaint = "finite"
    if complaint:
        raise InputError(f"{name} is {_short(value)}; it must be {complaint}.")


def _short(value: float) -> str:
    return str(value) if abs(value) < 10**30 or isinstance(value, float) else "far too large"


def checked_dataclass(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    """`kind(**values)` after `check_types`, which names `source` in its errors (raises InputError)."""
    check_types(values, typing.get_type_hints(kind), source)
    return kind(**values)


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], source: str) -> None:
    """Check the names and types of plain values; `source` is named in errors.

    Raises:
        InputError: a name that `hints` lacks (with the nearest known one), or a value of another type.
    """
    for name, value in values.items():
        if name not in hints:
            raise InputError(f"{source}: there is no setting '{name}'{nearest_name_hint(name, list(hints))}.")
        hint = hints[name]
        if not value_fits(value, hint):
            shown = str(value) if isinstance(value, datetime.date | datetime.time) else repr(value)
            advice = whole_number_hint(value) if hint is int else _without_quotes(value, hint)
            raise InputError(f"{source}: {name} is {shown}; it must be {type_words(hint)}{advice}.")


def value_fits(value: object, hint: Any) -> bool:
    """Whether a plain value (from JSON or TOML) has an annotated type: a class, a Literal, or a union of them."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(value_fits(value, option) for option in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def type_words(hint: Any) -> str:
    """An annotated type in plain words."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        return ("one of " if len(choices) > 1 else "") + ", ".join(map(str, choices))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_words(option) for option in typing.get_args(hint))
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, "empty")


def whole_number_hint(value: object) -> str:
    """How to write a whole number that was written as a float, such as 1e5; empty for anything else."""
    try:
        number = float(str(value))
    except ValueError:
        return ""
    return f"; write {int(number)}" if number.is_integer() and abs(number) < 2**53 else ""


def _without_quotes(value: object, hint: Any) -> str:
    """How to write `lr = "0.1"` and `fresh = "true"`; empty for anything else."""
    if not isinstance(value, str) or hint not in (float, bool):
        return ""
    words = value.strip().lower()
    try:
        fits = words in ("true", "false") if hint is bool else not math.isnan(float(words))
    except ValueError:
        return ""
    return f"; write {words}, without quotes" if fits else ""
