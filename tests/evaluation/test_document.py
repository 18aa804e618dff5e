"""What is written is what is read; numbers that are none become null; other files are refused in a sentence."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from vdvae_lr.evaluation.document import (
    EVALUATION_NAME,
    FORMAT,
    Evaluation,
    InputRates,
    read_evaluation,
    write_evaluation,
)
from vdvae_lr.evaluation.quantities import Measurement, Quantity

RATE = Quantity(
    "rate",
    "rate",
    "nats/dim",
    Measurement(0.1 + 0.2, 1e-17, 9),
    (Measurement(1 / 3, 0.5, 9), Measurement(-2.5e-300, None, 9)),
    {1: Measurement(1 / 3, 0.5, 9), 16: Measurement(0.25, None, 8)},
    tuple(number / 3 for number in range(9)),
)
INPUTS = InputRates(9, "nats/dim", {"0": 0.1, "1": 2 / 3}, ({"0": 0.0}, {"0": 0.1}), ((3, 0.1), (0, 0.25)))
EVALUATION = Evaluation(
    name="a 'run' – α",
    source="runs/a",
    model={"zdim": 8, "dec_blocks": "1x1,16m1", "input_scale": 0.1},
    dimensions=1024,
    resolutions=(1, 16),
    dataset="fashion",
    split="test",
    examples=9,
    seed=3,
    versions={"torch": "2"},
    quantities=(RATE, Quantity("negative_elbo", "bound", "nats/dim", Measurement(1.0, 0.1, 9))),
    inputs=INPUTS,
    details={"spectra": [[1.0, 0.5], []], "words": "x"},
    notes=("A note.",),
    settings={"noise_variances": [0.0, 0.3], "before": ""},
)


def content_of(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """What the file of an evaluation holds; it must be strict JSON."""
    write_evaluation(evaluation, folder / "made.json")
    content: dict[str, Any] = json.loads((folder / "made.json").read_text("utf-8"), parse_constant=pytest.fail)
    return content


def test_values_by_image_may_be_missing_but_not_too_few(tmp_path: Path) -> None:
    content = content_of(EVALUATION, tmp_path)
    del content["quantities"][0]["by_image"]
    (tmp_path / "e.json").write_text(json.dumps(content))
    assert read_evaluation(tmp_path / "e.json").quantities[0] == replace(RATE, by_image=())
    content["quantities"][0]["by_image"] = [1.0, 2.0]
    (tmp_path / "e.json").write_text(json.dumps(content))
    with refused("e.json", "damaged", "evaluate the model again"):
        read_evaluation(tmp_path / "e.json")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_evaluation(EVALUATION, tmp_path / "deep" / EVALUATION_NAME)
    assert read_evaluation(tmp_path / "deep" / EVALUATION_NAME) == EVALUATION
    assert read_evaluation(tmp_path / "deep") == EVALUATION


def test_without_inputs_and_groups(tmp_path: Path) -> None:
    little = replace(EVALUATION, inputs=None, quantities=(), notes=())
    write_evaluation(little, tmp_path / "e.json")
    assert read_evaluation(tmp_path / "e.json") == little


def test_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    odd = Quantity("r2", "R²", "", Measurement(math.nan, math.inf, 9), (), {1: Measurement(-math.inf, None, 9)})
    inputs = replace(INPUTS, quantiles={"0": math.nan}, nearest_collapse=((1, math.inf),))
    evaluation = replace(EVALUATION, quantities=(odd,), inputs=inputs, details={"deep": [{"x": math.nan}, (1.0,)]})
    content = content_of(evaluation, tmp_path)
    (written,) = content["quantities"]
    assert written["total"] == {"value": None, "standard_error": None, "images": 9}
    assert content["details"] == {"deep": [{"x": None}, [1.0]]}
    write_evaluation(evaluation, tmp_path / "e.json")
    read = read_evaluation(tmp_path / "e.json")
    (quantity,) = read.quantities
    assert quantity.total is not None
    assert math.isnan(quantity.total.value)
    assert quantity.total.standard_error is None
    assert math.isnan(quantity.resolutions[1].value)
    assert read.inputs is not None
    assert math.isnan(read.inputs.quantiles["0"])
    assert math.isnan(read.inputs.nearest_collapse[0][1])


def test_the_format_is_named_first(tmp_path: Path) -> None:
    assert next(iter(content_of(EVALUATION, tmp_path).items())) == ("format", FORMAT)


def test_a_quantity_is_found_by_its_key() -> None:
    assert EVALUATION.quantity("rate") is RATE
    assert EVALUATION.quantity("rates") is None


def test_a_missing_file(tmp_path: Path) -> None:
    with refused("evaluation.json", "there is no evaluation", "vdvae-lr evaluate RUN_OR_WEIGHTS"):
        read_evaluation(tmp_path / "evaluation.json")
    with refused("evaluation.json", "there is no evaluation", "vdvae-lr evaluate"):
        read_evaluation(tmp_path)  # a folder without one


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": "vdvae'])
def test_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "e.json").write_bytes(content)
    with refused("e.json", "is damaged: it is not JSON", "evaluate the model again"):
        read_evaluation(tmp_path / "e.json")


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"format": 1}', '{"format": "something", "name": "a"}'])
def test_json_of_other_programs(tmp_path: Path, content: str) -> None:
    (tmp_path / "e.json").write_text(content)
    with refused("e.json", "is not an evaluation", "`vdvae-lr evaluate` wrote"):
        read_evaluation(tmp_path / "e.json")


def test_another_version(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps({"format": "vdvae_lr evaluation 2"}))
    with refused("e.json", "another version", "evaluate the model again"):
        read_evaluation(tmp_path / "e.json")


DAMAGE: dict[str, Any] = {
    "resolutions": [1, 16, 32],
    "quantities": [{"key": "rate"}],
    "inputs": {"images": 9},
    "notes": 3,
    "versions": [],
    "name": None,
    "dimensions": "1024",
    "examples": True,
    "model": [],
    "details": "x",
    "settings": None,
    "seed": 1.5,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_in_one_place(tmp_path: Path, name: str) -> None:
    content = content_of(EVALUATION, tmp_path)
    for damaged in (content | {name: DAMAGE[name]}, {key: value for key, value in content.items() if key != name}):
        (tmp_path / "e.json").write_text(json.dumps(damaged))
        with refused("e.json", "is a damaged evaluation", "evaluate the model again"):
            read_evaluation(tmp_path / "e.json")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("total", "value"), "1"),
        (("total", "value"), True),
        (("total", "value"), 10**400),
        (("total", "standard_error"), []),
        (("total", "images"), None),
        (("groups",), [None, None]),
        (("resolutions",), {"x": None}),
        (("unit",), 1),
    ],
)
def test_damaged_numbers(tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    content = content_of(EVALUATION, tmp_path)
    where = content["quantities"][0]
    for step in place[:-1]:
        where = where[step]
    where[place[-1]] = value
    (tmp_path / "e.json").write_text(json.dumps(content))
    with refused("e.json", "is a damaged evaluation", "evaluate the model again"):
        read_evaluation(tmp_path / "e.json")


@pytest.mark.parametrize("share", ["x", "", "nan", "1.5", "-0.1"])
def test_shares_that_are_no_probability(tmp_path: Path, share: str) -> None:
    content = content_of(EVALUATION, tmp_path)
    content["inputs"]["quantiles"][share] = 0.5
    (tmp_path / "e.json").write_text(json.dumps(content))
    with refused("e.json", "is a damaged evaluation", "evaluate the model again"):
        read_evaluation(tmp_path / "e.json")


def test_a_name_that_is_no_text_is_kept(tmp_path: Path) -> None:
    odd = replace(EVALUATION, source=os.fsdecode(b"runs/caf\xe9"), notes=('"\ud800"',))
    write_evaluation(odd, tmp_path / "e.json")
    assert read_evaluation(tmp_path / "e.json") == odd


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with refused("file", "cannot be written", "choose another folder"):
        write_evaluation(EVALUATION, tmp_path / "file" / "e.json")
    assert (tmp_path / "file").read_text() == "old"
