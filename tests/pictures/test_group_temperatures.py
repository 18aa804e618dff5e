"""Temperatures in words and numbers, by group."""

import numpy as np
import pytest
from refusals import refused

from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures

RESOLUTIONS = (1, 4, 4, 8)


@pytest.mark.parametrize(
    ("given", "factors"),
    [
        (0.9, (0.9, 0.9, 0.9, 0.9)),
        (0, (0.0, 0.0, 0.0, 0.0)),
        (np.float32(0.5), (0.5, 0.5, 0.5, 0.5)),
        (np.int64(2), (2.0, 2.0, 2.0, 2.0)),
        (np.array([1, 0.5, 0.25, 2]), (1.0, 0.5, 0.25, 2.0)),
        ("0.9", (0.9, 0.9, 0.9, 0.9)),
        ("1,0.5, 0.25,0", (1.0, 0.5, 0.25, 0.0)),
        ([1, 0.5, 0.25, 2], (1.0, 0.5, 0.25, 2.0)),
        ("4x4:0.8", (1.0, 0.8, 0.8, 1.0)),
        ("8:0.1,1x1:2", (2.0, 1.0, 1.0, 0.1)),
    ],
)
def test_one_factor_a_group(given: Temperature, factors: tuple[float, ...]) -> None:
    assert group_temperatures(given, RESOLUTIONS) == factors


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (-0.5, "temperature is -0.5; it must be 0"),
        (float("nan"), "temperature is nan"),
        ("inf", "temperature is inf"),
        ("warm", "temperature 'warm' is no number"),
        ("", "temperature '' is no number"),
        ("1,2", "2 temperatures for 4 latent groups"),
        ([0.5], "1 temperature for 4 latent groups"),
        (["hot"], "temperature cannot be a list like this; give a number"),
        (None, "temperature cannot be a NoneType like this; give a number"),
        ((1.0,) * 5, "5 temperatures for 4 latent groups"),
        ("4:0.8,0.9", "'0.9' is no RESOLUTION:TEMPERATURE pair"),
        ("4:hot", "temperature 'hot' is no number"),
        ("4:-1", "temperature is -1"),
        ("16:0.5", "no latent group has resolution 16x16"),
    ],
)
def test_others_are_refused(given: Temperature, cause: str) -> None:
    with refused("", cause, ""):
        group_temperatures(given, RESOLUTIONS)
