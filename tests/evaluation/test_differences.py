"""Differences of two models on the same images: paired, and only between what was measured alike."""

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
from reported_folders import evaluation

from vdvae_lr.evaluation.differences import CLEAR, difference
from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.evaluation.quantities import Measurement, Quantity

OURS, THEIRS = (3.0, 5.5, 9.0, 2.5), (2.0, 5.0, 8.0, 1.0)


def measured(values: tuple[float, ...], key: str = "rate", title: str = "rate", **changes: Any) -> Evaluation:
    total = Measurement(statistics.fmean(values), 1.0, len(values))
    return evaluation(quantities=(Quantity(key, title, "nats/dim", total, by_image=values),), **changes)


def test_the_error_is_that_of_the_differences_by_image() -> None:
    found = difference(measured(OURS), measured(THEIRS), "rate")
    assert found is not None
    assert found.change.value == pytest.approx(1.0) and found.base == 4.0 and found.share == pytest.approx(0.25)
    assert found.change.standard_error == pytest.approx(statistics.stdev([1.0, 0.5, 1.0, 1.5]) / 2)
    assert found.is_clear


@pytest.mark.parametrize(("spread", "clear"), [(0.9, True), (1.1, False)])
def test_a_difference_is_clear_from_three_errors_on(spread: float, clear: bool) -> None:
    half = spread * math.sqrt(3) / CLEAR  # the error of +half, −half, +half, −half is half/√3
    ours = tuple(theirs + 1 + sign * half for theirs, sign in zip(THEIRS, (1, -1, 1, -1), strict=True))
    found = difference(measured(ours), measured(THEIRS), "rate")
    assert found is not None and found.is_clear is clear


def test_without_values_by_image_there_is_no_error() -> None:
    ours = replace(measured(OURS), quantities=(replace(measured(OURS).quantities[0], by_image=()),))
    found = difference(ours, measured(THEIRS), "rate")
    assert found is not None and found.change.standard_error is None and found.is_clear is None


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"split": "valid"},
        {"dataset": "fashion"},
        {"inventory": {"test": {"images": 4, "fingerprint": "b"}}},
        {"title": "rate of another kind"},
        {"settings": {"noise_images": 9}},
    ],
)
def test_what_was_not_measured_alike_is_not_subtracted(changes: dict[str, Any]) -> None:
    common = {"key": "noise_rms_raw_0.3", "inventory": {"test": {"images": 4, "fingerprint": "a"}}}
    base = measured(THEIRS, **common)
    assert difference(measured(OURS, **common), base, "noise_rms_raw_0.3") is not None
    assert difference(measured(OURS, **common | changes), base, "noise_rms_raw_0.3") is None


def test_other_numbers_of_images_and_what_is_not_finite_are_not_subtracted() -> None:
    assert difference(measured(OURS), measured(THEIRS[:3]), "rate") is None
    assert difference(measured((math.nan, *OURS[1:])), measured(THEIRS), "rate") is None
    assert difference(measured(OURS), measured(THEIRS), "distortion") is None


def test_a_share_of_nothing_or_of_the_other_sign_is_no_number() -> None:
    for base in (0.0, -0.1):
        found = difference(measured(OURS), measured((base - 1, base + 1, base - 1, base + 1)), "rate")
        assert found is not None and math.isnan(found.share)
