"""Weights that are no numbers are refused, by the name of the first tensor that has one."""

import math

import pytest
import torch
from refusals import refused
from torch import nn

from vdvae_lr.hub.sound_weights import check_finite


def a_model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_bad_tensor_is_named(value: float) -> None:
    model = a_model()
    with torch.no_grad():
        for parameter in (model[0].bias, model[1].weight):  # type: ignore[index]
            parameter[1] = value
    with refused("runs/a", "0.bias", "take an earlier checkpoint"):
        check_finite(model, "runs/a")


def test_large_numbers_are_sound() -> None:
    model = a_model()
    with torch.no_grad():
        model[0].weight.fill_(3e38)  # type: ignore[index] # whose sum is infinite
    check_finite(model, "runs/a")
    check_finite(nn.Identity(), "nothing")
