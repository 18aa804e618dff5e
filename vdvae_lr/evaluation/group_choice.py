"""Latent groups in words: choices such as `0:5`, `3`, `16x16` and `all`, and sentences about groups.

A choice has one or several pieces, with commas between them:

| piece          | in a choice of groups (`parse_groups`)       | in a choice of first groups (`parse_first_groups`) |
|----------------|----------------------------------------------|----------------------------------------------------|
| `3`            | group 3, counted from 0, the coarsest        | the first 3 groups                                 |
| `0:5` `5:` `:5`| from the first number to before the second   | refused                                            |
| `16x16`        | every group at that resolution               | the groups down to the last one there              |
| `all`          | every group                                  | every group                                        |

Everywhere `resolutions` are those of the model's L groups, top-down.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from numbers import Integral

from vdvae_lr.errors import InputError

_NUMBER = re.compile(r"\d{1,6}", re.ASCII)
_RANGE = re.compile(r"(\d{0,6}):(\d{0,6})", re.ASCII)
_RESOLUTION = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)


def parse_groups(text: str | int, resolutions: Sequence[int]) -> tuple[int, ...]:
    """The numbers of the chosen groups, top-down, each once. `text` may also be the number of one group.

    Raises:
        InputError: a piece is not in the table, chooses nothing, or names groups that the model does not have.
    """
    if not isinstance(text, str | Integral):
        raise InputError(
            f"groups is of type {type(text).__name__}; give the number of a latent group, or words such as '0:5,7'."
        )
    chosen: set[int] = set()
    for piece in _pieces(str(text)):
        if _NUMBER.fullmatch(piece):
            chosen.update(_existing(piece, int(piece), int(piece) + 1, resolutions))
        elif found := _RANGE.fullmatch(piece):
            first, last = found.groups()
            chosen.update(_existing(piece, int(first or 0), int(last or len(resolutions)), resolutions))
        elif (at := _groups_at(piece, resolutions)) is not None:
            chosen.update(at)
        else:
            raise InputError(
                f"'{piece}' does not choose latent groups; write 3, 0:5, 16x16 or all, or several with commas."
            )
    return tuple(sorted(chosen))


def parse_first_groups(text: str, resolutions: Sequence[int]) -> tuple[int, ...]:
    """How many groups to keep, counted from the coarsest: each number k from 0 to L once, rising.

    Raises:
        InputError: a piece is not in the table, or asks for more groups than the model has.
    """
    counts: set[int] = set()
    for piece in _pieces(text):
        if _NUMBER.fullmatch(piece):
            if int(piece) > len(resolutions):
                raise InputError(f"the first {int(piece)} groups cannot be had: {describe_groups(resolutions)}.")
            counts.add(int(piece))
        elif (at := _groups_at(piece, resolutions)) is not None:
            counts.add(at[-1] + 1)
        else:
            raise InputError(
                f"'{piece}' does not say how many first groups; write a number such as 4, a resolution such as 16x16, "
                "or all, or several with commas."
            )
    return tuple(sorted(counts))


def first_groups_by_resolution(resolutions: Sequence[int]) -> tuple[int, ...]:
    """How many groups there are down to the end of each resolution: (1, 4, 8) for one at 1x1, 3 at 4x4, 4 at 8x8."""
    return tuple(last + 1 for _, _, last in _rows(resolutions))


def groups_by_resolution(resolutions: Sequence[int]) -> dict[int, list[int]]:
    """The groups at each resolution, coarse to fine."""
    levels = sorted(set(resolutions))
    return {level: [group for group, each in enumerate(resolutions) if each == level] for level in levels}


def describe_groups(resolutions: Sequence[int]) -> str:
    """The model's groups in words: `the model has groups 0 to 7 (0 at 1x1, 1:4 at 4x4, 4:8 at 8x8)`."""
    words = [
        f"{first if first == last else f'{first}:{last + 1}'} at {resolution}x{resolution}"
        for resolution, first, last in _rows(resolutions)
    ]
    numbers = f"groups 0 to {len(resolutions) - 1}" if len(resolutions) > 1 else "one group, 0"
    return f"the model has {numbers} ({', '.join(words)})"


def named_groups(groups: Sequence[int]) -> str:
    """Rising group numbers in words, neighbours as a range: `group 3`, `groups 0-4 and 7`."""
    words = []
    for _, row in groupby(enumerate(groups), key=lambda pair: pair[1] - pair[0]):
        members = [group for _, group in row]
        words.append(f"{members[0]}-{members[-1]}" if len(members) > 1 else str(members[0]))
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"group{'s' if len(groups) > 1 else ''} {listed}"


def parse_resolution(text: str, resolutions: Sequence[int]) -> int | None:
    """R of `RxR`, or None for other words.

    Raises:
        InputError: no group has this resolution.
    """
    found = _RESOLUTION.fullmatch(text)
    if found is None:
        return None
    if found[1] != found[2] or int(found[1]) not in resolutions:
        raise InputError(f"no latent group has resolution {text}: {describe_groups(resolutions)}.")
    return int(found[1])


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",")]


def _existing(piece: str, first: int, end: int, resolutions: Sequence[int]) -> range:
    if first >= len(resolutions) or end > len(resolutions):
        raise InputError(f"latent groups '{piece}' go beyond the last one: {describe_groups(resolutions)}.")
    if first >= end:
        raise InputError(f"'{piece}' chooses no latent group: {describe_groups(resolutions)}, and 0:5 leaves out 5.")
    return range(first, end)


def _groups_at(piece: str, resolutions: Sequence[int]) -> Sequence[int] | None:
    """The numbers of the groups that `all` or `RxR` names; None for other words."""
    if piece == "all":
        return range(len(resolutions))
    resolution = parse_resolution(piece, resolutions)
    return None if resolution is None else groups_by_resolution(resolutions)[resolution]


def _rows(resolutions: Sequence[int]) -> list[tuple[int, int, int]]:
    """(resolution, first group, last group) for each row of neighbouring groups at one resolution, top-down."""
    rows = []
    for resolution, pairs in groupby(enumerate(resolutions), key=lambda pair: pair[1]):
        numbers = [number for number, _ in pairs]
        rows.append((resolution, numbers[0], numbers[-1]))
    return rows
