"""The table has every quantity, every group on a line of its own, and fits a page."""

import math
import re
from dataclasses import replace

import pytest

from vdvae_lr.evaluation.document import Evaluation, InputRates
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.report.evaluation_table import COLUMNS, WIDTH, compact, evaluation_text, short, stated

SIDES = (1, 4, 4, 8)


def a_quantity(key: str, sides: tuple[int, ...], factor: float = 1.0) -> Quantity:
    groups = tuple(Measurement(factor * (number + 1), 0.5, 9) for number in range(len(sides)))
    sums = {level: sum(g.value for g, s in zip(groups, sides, strict=True) if s == level) for level in set(sides)}
    resolutions = {level: Measurement(value, 0.5, 9) for level, value in sums.items()}
    return Quantity(key, f"the {key}", "nats/dim", Measurement(sum(sums.values()), 0.5, 9), groups, resolutions)


def an_evaluation(sides: tuple[int, ...] = SIDES, factor: float = 0.01) -> Evaluation:
    quantities = tuple(a_quantity(key, sides, factor) for key in COLUMNS)
    return Evaluation(
        *("LR", "runs/lr", {"zdim": 8}, 1024, sides, "fashion", "test", 1000, 3, {"torch": "2"}),
        quantities=(Quantity("negative_elbo", "bound", "nats/dim", Measurement(1.23456, 0.0123, 1000)), *quantities),
        inputs=InputRates(1000, "nats/dim", {"0": 0.125, "0.5": 0.25, "1": 0.75}, (), ((17, 0.125), (3, 0.14))),
        notes=("The posterior mean of group 3 is the same for every image: " + "and so on " * 20,),
    )


def lines_under(text: str, heading: str) -> list[list[str]]:
    """The words of each line below a heading, down to an empty line that another heading follows."""
    block = re.split(r"\n\n(?=[A-Z])", text[text.index(heading) :])[0]
    return [line.split() for line in block.splitlines()[1:] if line]


def test_totals_have_value_error_unit_and_images() -> None:
    rows = lines_under(evaluation_text(an_evaluation()), "In total")
    assert ["bound", "1.235", "±", "0.012", "nats/dim", "1,000"] in rows
    assert len(rows) == 2 + len(COLUMNS)


def test_rows_of_groups_and_resolutions() -> None:
    text = evaluation_text(an_evaluation())
    header, *groups = lines_under(text, "By latent group")
    assert header[:5] == ["group", "size", "rate", "share", "active"]
    assert groups[0][:5] == ["0", "1x1", "0.01", "10.0", "0.01"]
    assert groups[3][:5] == ["3", "8x8", "0.04", "40.0", "0.04"]
    header, *resolutions = lines_under(text, "By resolution")
    assert header[:4] == ["size", "groups", "rate", "share"]
    assert [row[:4] for row in resolutions] == [
        ["1x1", "1", "0.01", "10.0"],
        ["4x4", "2", "0.05", "50.0"],
        ["8x8", "1", "0.04", "40.0"],
    ]


def test_inputs_and_notes() -> None:
    text = evaluation_text(an_evaluation())
    share, epsilon = lines_under(text, "The share of images")[:2]
    assert share == ["share", "0%", "50%", "100%"]
    assert epsilon == ["ε,", "nats/dim", "0.125", "0.25", "0.75"]
    assert lines_under(text, "Images nearest collapse, of 1,000")[1:3] == [["17", "0.125"], ["3", "0.14"]]
    assert "Note: The posterior mean of group 3" in text


def test_a_long_model_fits_the_page() -> None:
    """As many groups as ffhq1024 has and more, and numbers as wide as they come."""
    sides = tuple(side for side in (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024) for _ in range(10))
    evaluation = an_evaluation(sides, -1.2345678e-5)
    widest = {
        "rate": 1.2345678e-5,
        "active_channels": 0.9876,
        "active_channels_relative": 0.9876,
        "prior_scale": 0.0123,
    }
    quantities = [
        a_quantity(each.key, sides, widest[each.key]) if each.key in widest else each for each in evaluation.quantities
    ]
    long = Quantity("x", "a title " * 12, "squares/dim", Measurement(-12.34567, 0.00123, 10_000))
    text = evaluation_text(replace(evaluation, quantities=(*quantities, long)))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "…" not in text
    rows = lines_under(text, "By latent group")
    assert [row[0] for row in rows[1:101]] == [str(group) for group in range(100)]
    assert text == "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_what_was_not_measured_is_left_out() -> None:
    evaluation = an_evaluation()
    little = replace(evaluation, quantities=evaluation.quantities[:2], inputs=None, notes=())
    text = evaluation_text(little)
    assert lines_under(text, "By latent group")[0] == ["group", "size", "rate", "share"]
    assert "ε" not in text
    bare = evaluation_text(replace(little, quantities=evaluation.quantities[:1]))
    assert "By latent group" not in bare


def test_a_rate_of_zero_has_no_shares() -> None:
    _, *groups = lines_under(evaluation_text(an_evaluation(factor=0.0)), "By latent group")
    assert groups[0][2:4] == ["0", "–"]


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (1.23456, 0.0123, ("1.235", "± 0.012")),
        (1.23456, 0.0996, ("1.235", "± 0.100")),
        (123.456, 12.3, ("123", "± 12")),
        (0.000123456, 0.0000123, ("0.000123", "± 0.000012")),
        (1.23456, None, ("1.235", "")),
        (1.0, 0.0, ("1", "± 0")),
        (0.0, 0.0, ("0", "± 0")),
        (math.nan, 0.1, ("–", "")),
        (1.0, math.nan, ("1", "")),
        (-math.inf, None, ("-∞", "")),
    ],
)
def test_a_value_has_the_digits_of_its_error(value: float, error: float | None, expected: tuple[str, str]) -> None:
    assert stated(Measurement(value, error, 9)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.00123456, "0.00123"), (-7.149e-4, "-7.1e-4"), (2.8e-7, "2.8e-7"), (0.0, "0"), (12.34, "12.3"), (math.nan, "–")],
)
def test_compact_numbers(value: float, expected: str) -> None:
    assert compact(value) == expected


def test_infinity_is_no_number_to_round() -> None:
    assert short(math.inf) == compact(math.inf) == "∞"


def test_noise_by_spatial_scale_has_its_own_tables() -> None:
    found = an_evaluation()
    bands = [
        replace(a_quantity(f"noise_band_{band}_{unit}_0.3", SIDES, band / 100), total=Measurement(band / 10, 0.1, 9))
        for unit in ("raw", "prior_scale")
        for band in (2, 1)
    ]
    text = evaluation_text(replace(found, quantities=(*found.quantities, *bands)))
    header, *rows = lines_under(text, "Image RMS by spatial scale")
    assert header == ["noise", "2", "1"]
    assert rows == [["0.3", "0.2", "0.1"], ["0.3", "σ_p²", "0.2", "0.1"]]
    heading = "The same for noise 0.3 σ_p² in one latent group alone"
    assert lines_under(text, heading)[-1] == ["3", "8x8", "0.08", "0.04"]
    assert "the noise_band" not in text  # a row for each would drown the other totals
    assert "spatial scale" not in evaluation_text(found)  # as in files of earlier versions


def test_readers_stand_side_by_side() -> None:
    found = an_evaluation()
    fresh = a_quantity("information_from_samples_fresh", SIDES, 0.02)
    text = evaluation_text(replace(found, quantities=(*found.quantities, fresh)))
    header, total, *groups = lines_under(text, "Information in the model's own samples (eq. 5, nats/dim)")
    assert header == ["group", "size", "its", "own", "trained", "afresh"]
    assert total == ["all", "0.1", "0.2"]
    assert groups[3] == ["3", "8x8", "0.04", "0.08"]
