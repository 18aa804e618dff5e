"""Choices of latent groups in words: what each piece means, and what is said of pieces that mean nothing."""

import numpy as np
import pytest
from refusals import refused

from vdvae_lr.evaluation.group_choice import (
    describe_groups,
    first_groups_by_resolution,
    named_groups,
    parse_first_groups,
    parse_groups,
)

FASHION = (1, 4, 4, 4, 8, 8)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("all", (0, 1, 2, 3, 4, 5)),
        ("0", (0,)),
        ("5", (5,)),
        ("1:3", (1, 2)),
        ("4:", (4, 5)),
        (":2", (0, 1)),
        ("4x4", (1, 2, 3)),
        ("8x8, 0,0", (0, 4, 5)),
        ("5,1:3", (1, 2, 5)),
    ],
)
def test_groups(words: str, chosen: tuple[int, ...]) -> None:
    assert parse_groups(words, FASHION) == chosen


@pytest.mark.parametrize(
    ("words", "counts"), [("all", (6,)), ("0", (0,)), ("6,1", (1, 6)), ("4x4", (4,)), ("1x1,8x8,2", (1, 2, 6))]
)
def test_first_groups(words: str, counts: tuple[int, ...]) -> None:
    assert parse_first_groups(words, FASHION) == counts


@pytest.mark.parametrize("words", ["6", "0:7", "9:", "3,6", "123456"])
def test_groups_beyond_the_last_are_told_which_there_are(words: str) -> None:
    with refused("latent group", "groups 0 to 5", "(0 at 1x1, 1:4 at 4x4, 4:6 at 8x8)"):
        parse_groups(words, FASHION)


@pytest.mark.parametrize("words", ["", "x", "-1", "1,,2", "4x", "1:2:3", "1.5", "²", "all 3"])
def test_other_words_are_no_choice(words: str) -> None:
    with refused("", "does not choose latent groups", "write 3, 0:5, 16x16 or all"):
        parse_groups(words, FASHION)
    with refused("", "does not say how many first groups", "write a number such as 4"):
        parse_first_groups(words, FASHION)


@pytest.mark.parametrize("words", ["3:3", "4:2", "0:0"])
def test_a_range_of_nothing_is_refused(words: str) -> None:
    with refused(words, "chooses no latent group", "0:5 leaves out 5"):
        parse_groups(words, FASHION)


@pytest.mark.parametrize("words", ["16x16", "4x8", "2x2"])
def test_a_resolution_without_groups_is_refused(words: str) -> None:
    for parse in (parse_groups, parse_first_groups):
        with refused(words, "no latent group has resolution", "1:4 at 4x4"):
            parse(words, FASHION)


@pytest.mark.parametrize("number", [3, np.int64(3)])
def test_a_number_is_that_group(number: int) -> None:
    assert parse_groups(number, FASHION) == (3,)


def test_no_words_and_no_number() -> None:
    with refused("groups is of type list", "number of a latent group", "0:5,7"):
        parse_groups([0, 1], FASHION)  # type: ignore[arg-type]


def test_more_first_groups_than_there_are() -> None:
    with refused("the first 7 groups", "cannot be had", "groups 0 to 5"):
        parse_first_groups("2,7", FASHION)


def test_the_hierarchy_in_words_and_numbers() -> None:
    assert first_groups_by_resolution(FASHION) == (1, 4, 6)
    assert first_groups_by_resolution((8,)) == (1,)
    assert describe_groups((8,)) == "the model has one group, 0 (0 at 8x8)"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([3], "group 3"),
        ([0, 1], "groups 0-1"),
        ([0, 2], "groups 0 and 2"),
        ([0, 1, 2, 5, 7, 8], "groups 0-2, 5 and 7-8"),
    ],
)
def test_neighbours_are_drawn_together(groups: list[int], words: str) -> None:
    assert named_groups(groups) == words
