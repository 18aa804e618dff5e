"""The published optimiser's state goes on in AdamW as if nothing had happened; every other file is refused clearly."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.vdvae.tensors import from_published, read_optimiser_state, to_published
from vdvae_lr.training.optim import OptimisationSettings, Optimiser
from vdvae_lr.training.weights import FlatWeights

UPDATES = 1_700_000
RULE = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.03}
SETTINGS = OptimisationSettings(
    lr=0.01, adam_beta1=0.8, adam_beta2=0.95, wd=0.03, warmup_iters=0, grad_clip=1e9, skip_threshold=-1.0
)
State = dict[str, Any]


def random_like(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """In float32's range, so that a file of them loses nothing."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype)
        for name, tensor in tensors.items()
    }


def published_weights(model: VDVAE) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in to_published(model, model.state_dict()).items()}


def apex_state(model: VDVAE, first: int = 0) -> State:
    """What FusedAdam of the published code saves: parameters by number, one count of updates for all."""
    weights = published_weights(model)
    averages, squares = random_like(weights, 1), random_like(weights, 2)
    state = {
        first + number: {"exp_avg": averages[name].float(), "exp_avg_sq": squares[name].float().square()}
        for number, name in enumerate(weights)
    }
    group = {**RULE, "bias_correction": True, "step": UPDATES, "params": list(state)}
    return {"state": dict(reversed(state.items())), "param_groups": [group]}


def write(folder: Path, content: object) -> Path:
    path = folder / "published-opt.th"
    torch.save(content, path)
    return path


def torch_rule(model: VDVAE, state: State) -> tuple[dict[str, Tensor], torch.optim.AdamW]:
    """torch's own AdamW over the published tensors, put where the file says; the parameters by published name."""
    parameters = {name: nn.Parameter(tensor) for name, tensor in published_weights(model).items()}
    rule = torch.optim.AdamW(parameters.values(), **RULE)  # type: ignore[arg-type]
    (group,) = state["param_groups"]
    for parameter, number in zip(parameters.values(), group["params"], strict=True):
        moments = {kind: state["state"][number][kind].to(parameter.dtype) for kind in ("exp_avg", "exp_avg_sq")}
        rule.state[parameter] = {**moments, "step": torch.tensor(float(UPDATES))}
    return {name: parameter.data for name, parameter in parameters.items()}, rule


def update_both(model: VDVAE, path: Path, state: State) -> tuple[dict[str, Tensor], dict[str, Tensor], Optimiser]:
    """Two updates with the same gradients: what ours became, under published names, and what torch's did."""
    theirs, rule = torch_rule(model, state)
    weights = FlatWeights(model)
    optimiser = Optimiser(weights, SETTINGS)
    optimiser.load_moments(*read_optimiser_state(path, model))
    for iteration in range(2):
        gradients = random_like(theirs, 10 + iteration)
        for parameter, gradient in zip(rule.param_groups[0]["params"], gradients.values(), strict=True):
            parameter.grad = gradient
        weights.load(weights.gradients, from_published(model, gradients, "test"))
        rule.step()
        optimiser.step(iteration)
    return published_weights(model), theirs, optimiser


@pytest.mark.parametrize("first", [0, 40], ids=["numbered from 0", "numbered from 40"])
def test_the_next_updates_are_those_of_the_published_layout(small_model: VDVAE, tmp_path: Path, first: int) -> None:
    before, state = published_weights(small_model), apex_state(small_model, first)
    ours, theirs, optimiser = update_both(small_model, write(tmp_path, state), state)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-12, atol=1e-14, msg=name)
        assert not torch.equal(tensor, before[name]), name
    assert int(optimiser.update_count()) == UPDATES + 2


def test_without_the_state_the_updates_are_others(small_model: VDVAE, tmp_path: Path) -> None:
    """Or the test above would hold for a state that is lost."""
    state = apex_state(small_model)
    empty = {number: {kind: torch.zeros_like(t) for kind, t in own.items()} for number, own in state["state"].items()}
    ours, theirs, _ = update_both(small_model, write(tmp_path, state | {"state": empty}), state)
    assert all(not ours[name].allclose(tensor, rtol=1e-3) for name, tensor in theirs.items())


def test_torchs_own_state_loads_too(small_model: VDVAE, tmp_path: Path) -> None:
    state = apex_state(small_model)
    _, rule = torch_rule(small_model, state)
    ours, theirs, _ = update_both(small_model, write(tmp_path, rule.state_dict()), state)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-12, atol=1e-14, msg=name)


def test_half_precision_averages_become_single(small_model: VDVAE, tmp_path: Path) -> None:
    state = apex_state(small_model)
    for moments in state["state"].values():
        moments["exp_avg"] = moments["exp_avg"].bfloat16()
    moments, count = read_optimiser_state(write(tmp_path, state), small_model)
    assert {tensor.dtype for kind in moments.values() for tensor in kind.values()} == {torch.float32}
    assert count.shape == () and int(count) == UPDATES


def refusal(path: Path, model: VDVAE) -> str:
    with pytest.raises(InputError) as caught:
        read_optimiser_state(path, model)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")
    return message


def change_group(**changes: Any) -> Callable[[State], State]:
    def change(state: State) -> State:
        (group,) = state["param_groups"]
        kept = {name: value for name, value in (group | changes).items() if value is not None}
        return state | {"param_groups": [kept]}

    return change


def change_moment(number: int, kind: str, value: object) -> Callable[[State], State]:
    def change(state: State) -> State:
        return state | {"state": state["state"] | {number: state["state"][number] | {kind: value}}}

    return change


def without(number: int) -> Callable[[State], State]:
    return lambda state: state | {"state": {key: own for key, own in state["state"].items() if key != number}}


OTHER_MODEL = "is the optimiser state of another model"
NO_STATE = "is no optimiser state of one group of parameters with a count of updates"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(change_group(params=list(range(7))), f"{OTHER_MODEL}: it has 7 parameters, this one", id="fewer"),
        pytest.param(
            change_moment(0, "exp_avg", torch.zeros(2, 3)), "in_conv.weight' has exp_avg of shape", id="shape"
        ),
        pytest.param(change_moment(3, "exp_avg_sq", None), "its exp_avg_sq is missing or not finite", id="no moment"),
        pytest.param(change_moment(3, "exp_avg", torch.zeros(12, dtype=torch.int64)), "exp_avg is missing", id="whole"),
        pytest.param(change_moment(1, "exp_avg", torch.full((12,), torch.nan)), "in_conv.bias': its exp_avg", id="NaN"),
        pytest.param(change_moment(1, "exp_avg_sq", torch.full((12,), torch.inf)), "not finite; fetch", id="infinite"),
        pytest.param(without(2), "its exp_avg is missing", id="no parameter"),
        pytest.param(without(0), "'encoder.in_conv.weight': its exp_avg is missing", id="not the first"),
        pytest.param(lambda state: state | {"state": list(state["state"].values())}, "missing", id="a list of states"),
        pytest.param(
            lambda state: state | {"state": {0: torch.zeros(1)}}, "exp_avg is missing", id="tensors for states"
        ),
        pytest.param(change_group(step=None), NO_STATE, id="no count"),
        pytest.param(change_group(step=0), NO_STATE, id="before the first update"),
        pytest.param(change_group(step=float("nan")), NO_STATE, id="count NaN"),
        pytest.param(change_group(step=float("inf")), NO_STATE, id="count infinite"),
        pytest.param(change_group(step=torch.ones(2)), NO_STATE, id="two counts"),
        pytest.param(change_group(step="many"), NO_STATE, id="count in words"),
        pytest.param(change_group(params=[]), f"{OTHER_MODEL}: it has 0 parameters", id="no parameters"),
        pytest.param(change_group(params=[], step=None), NO_STATE, id="neither parameters nor count"),
        pytest.param(change_group(params=7), NO_STATE, id="no list"),
        pytest.param(change_group(params=[[0]] * 7), NO_STATE, id="lists for numbers"),
        pytest.param(lambda state: state | {"param_groups": state["param_groups"] * 2}, NO_STATE, id="two groups"),
        pytest.param(lambda state: state | {"param_groups": [3]}, NO_STATE, id="no group"),
        pytest.param(lambda state: {"state": state["state"]}, NO_STATE, id="half of it"),
        pytest.param(lambda state: [state], NO_STATE, id="a list"),
        pytest.param(lambda state: torch.zeros(3), NO_STATE, id="a tensor"),
        pytest.param(lambda state: {"a": torch.zeros(3)}, NO_STATE, id="a model's weights"),
    ],
)
def test_a_file_that_is_no_state_of_this_model_is_one_sentence(
    small_model: VDVAE, tmp_path: Path, change: Callable[[State], object], words: str
) -> None:
    path = write(tmp_path, change(apex_state(small_model)))
    assert words in refusal(path, small_model)


def test_the_published_weights_in_its_place_are_refused(small_model: VDVAE, tmp_path: Path) -> None:
    path = write(tmp_path, published_weights(small_model))
    assert NO_STATE in refusal(path, small_model) and "-opt.th" in refusal(path, small_model)


class RunsCode:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(("plain", "words"), [(False, "asks to run code"), (True, "cannot be read")])
def test_code_in_the_file_is_not_run(small_model: VDVAE, tmp_path: Path, plain: bool, words: str) -> None:
    path, marker = tmp_path / "evil-opt.th", tmp_path / "marker"
    content = apex_state(small_model) | {"extra": RunsCode(marker)}
    path.write_bytes(pickle.dumps(content)) if plain else torch.save(content, path)
    assert words in refusal(path, small_model)
    assert not marker.exists()


def test_a_cut_and_a_missing_file_are_named(small_model: VDVAE, tmp_path: Path) -> None:
    path = write(tmp_path, apex_state(small_model))
    path.write_bytes(path.read_bytes()[:2000])
    assert "fetch it again" in refusal(path, small_model)
    assert "does not exist" in refusal(tmp_path / "absent-opt.th", small_model)
