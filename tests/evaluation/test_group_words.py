"""Groups in words."""

import pytest

from vdvae_lr.evaluation.group_words import named_groups


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
