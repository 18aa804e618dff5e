"""Curves of training: long logs are drawn as means of neighbouring points."""

import numpy as np
import pytest

from vdvae_lr.report.training import thinned


@pytest.mark.parametrize("count", [1, 7, 10, 11, 23])
def test_thinned_points_are_means_of_neighbours(count: int) -> None:
    generator = np.random.default_rng(count)
    x, y = np.arange(count, dtype=np.float64), generator.normal(size=count)
    y[::4] = np.nan
    fewer_x, fewer_y, every = thinned(x, y, 10)
    assert every == -(-count // 10) and len(fewer_x) <= 10
    for number, start in enumerate(range(0, count, every)):
        known = [value for value in y[start : start + every] if not np.isnan(value)]
        assert fewer_x[number] == pytest.approx(np.mean(x[start : start + every]))
        assert fewer_y[number] == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


def test_nothing_is_thinned_to_nothing() -> None:
    empty = np.zeros(0)
    assert [len(part) for part in thinned(empty, empty, 10)[:2]] == [0, 0]
