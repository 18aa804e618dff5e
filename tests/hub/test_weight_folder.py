"""A folder of weights: what is written comes back whole, and what cannot be a model's is refused by name."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from small_config import SMALL
from torch import nn
from training_runs import assert_same_bits

from vdvae_lr.hub.weight_folder import (
    check_finite,
    check_fit,
    read_config,
    read_shapes,
    read_weights,
    write_config,
    write_weights,
)

KNOWN = {"a": (2, 3), "b": (4,)}


def test_settings_and_data_set_come_back(tmp_path: Path) -> None:
    write_config(tmp_path, SMALL, "fashion")
    assert read_config(tmp_path / "config.json") == (SMALL, "fashion")
    assert json.loads((tmp_path / "config.json").read_text())["model"] == vars(SMALL)


def test_settings_that_are_left_out_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": {"width": 8, "bottleneck_multiple": 1}, "dataset": "", "more": 1}')
    config, dataset = read_config(tmp_path / "config.json")
    assert (config.width, config.bottleneck_multiple, config.zdim, dataset) == (8, 1, 16, "")


def test_absent_settings_are_named(tmp_path: Path) -> None:
    with refused(f"{tmp_path}/config.json", "is missing", "fetch the whole folder"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with refused(f"{tmp_path}/config.json", "is not a model's settings", "fetch it again"):
        read_config(tmp_path / "config.json")


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1),
        st.tuples(
            st.sampled_from([torch.float32, torch.bfloat16, torch.int64]), st.lists(st.integers(0, 3), max_size=4)
        ),
        max_size=5,
    )
)
def test_tensors_of_any_name_shape_and_kind_come_back(made: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    state = {name: torch.ones(shape, dtype=dtype).cumsum(-1) for name, (dtype, shape) in made.items() if shape}
    state = {name: tensor.to(made[name][0]) for name, tensor in state.items() if name != "__metadata__"}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_weights(path, state)
        assert_same_bits(read_weights(path), state)
        assert read_shapes(path) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_what_is_written_is_of_no_graph_and_for_all_to_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    weight = torch.arange(6.0).reshape(2, 3).requires_grad_()
    write_weights(path, {"turned": weight.t(), "plain": weight * 2})
    assert path.stat().st_mode & 0o777 == 0o644
    found = read_weights(path)
    assert torch.equal(found["turned"], weight.detach().t())
    assert not found["plain"].requires_grad


def test_a_folder_that_is_missing_or_full_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_weights(tmp_path / "absent" / "model.safetensors", {"a": torch.zeros(1)})


def test_weights_that_are_absent_or_no_safetensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for read in (read_weights, read_shapes):
        path.unlink(missing_ok=True)
        with refused(f"weights file {path}", "does not exist", "check the path"):
            read(path)
        path.write_text("<html>")
        with refused(f"weights file {path}", "is damaged", "fetch or make it again"):
            read(path)


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"a": (2, 3)}, "'b' is missing"),
        (KNOWN | {"c": (1,)}, "'c' is not part of this model"),
        ({"a": (3, 2), "b": (4,)}, "'a' has shape (3, 2), not (2, 3)"),
        ({"a": (2, 3), "b": ()}, "'b' has shape (), not (4,)"),
        ({}, "'a' is missing"),
    ],
)
def test_tensors_of_another_model_are_named(found: dict[str, tuple[int, ...]], cause: str) -> None:
    with refused("some.safetensors does not fit the model", cause, "use the settings it was saved with"):
        check_fit(KNOWN, found, "some.safetensors")


def test_tensors_of_this_model_fit() -> None:
    check_fit(KNOWN, dict(reversed(KNOWN.items())), "some.safetensors")


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
