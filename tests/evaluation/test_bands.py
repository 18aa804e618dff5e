"""Bands of a change: they add up, each finds what is of its scale, and sizes that do not halve have bands too."""

import pytest
import torch
from torch import Tensor

from vdvae_lr.evaluation.bands import band_resolutions, band_squares


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, (1,)), (2, (2, 1)), (8, (8, 4, 2, 1)), (32, (32, 16, 8, 4, 2, 1)), (28, (28, 14, 7, 1)), (5, (5, 1))],
)
def test_resolutions_halve_down_to_the_mean(size: int, expected: tuple[int, ...]) -> None:
    assert band_resolutions(size) == expected


@pytest.mark.parametrize("size", [1, 5, 8, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_squares_add_up(size: int, channels: int) -> None:
    torch.manual_seed(0)
    change = torch.randn(4, channels, size, size, dtype=torch.float64)
    bands = band_squares(change)
    assert bands.shape == (4, len(band_resolutions(size)))
    torch.testing.assert_close(bands.sum(1), change.square().mean((1, 2, 3)), rtol=1e-13, atol=0)


def test_squares_of_whole_numbers_add_up_exactly() -> None:
    """Averages of whole numbers over powers of two are exact in float64: nothing is lost between the bands."""
    change = torch.randint(-255, 256, (6, 1, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(band_squares(change).sum(1), change.double().square().mean((1, 2, 3)))


def blocks(resolution: int) -> Tensor:
    """±1 in a chessboard of resolution × resolution blocks in an image of 16 × 16."""
    rows = torch.arange(16) // (16 // resolution)
    return (1.0 - 2.0 * ((rows[:, None] + rows) % 2)).expand(2, 1, 16, 16)


@pytest.mark.parametrize("resolution", [1, 2, 4, 8, 16])
def test_a_chessboard_is_in_the_band_of_its_blocks(resolution: int) -> None:
    expected = [float(resolution == band) for band in (16, 8, 4, 2, 1)]
    assert band_squares(3 * blocks(resolution)).tolist() == [[9 * share for share in expected]] * 2


def test_channels_keep_their_own_means() -> None:
    """Red up and blue down by as much leaves the grey mean, but it is a change of colour: band 1."""
    change = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert band_squares(change).tolist() == [[0, 0, pytest.approx(2 / 3)]]
