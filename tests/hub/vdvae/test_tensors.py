"""The published weight files: names, shapes and order, both ways bit for bit, and every damaged file refused."""

import pickle
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from reference_cases import NAMES, PUBLISHED_MODELS, load_case, published_config
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.torch_files import read_tensors
from vdvae_lr.hub.vdvae.tensors import from_published, to_published, write_published


@cache
def meta_model(name: str) -> VDVAE:
    """A published configuration without memory for its weights."""
    with torch.device("meta"):
        return VDVAE(published_config(PUBLISHED_MODELS[name]["hps"]))


def published_numbers(name: str) -> dict[str, Tensor]:
    numbers = load_case(name, torch.float64).numbers
    return {k.removeprefix("param/"): torch.from_numpy(v) for k, v in numbers.items() if k.startswith("param/")}


def assert_same_tensors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def refusal(path: Path) -> str:
    """What reading `path` is refused with: one sentence that names the file."""
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    assert sum(p.numel() for p in meta_model(name).parameters()) == PUBLISHED_MODELS[name]["parameters"]


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_published_names_shapes_and_order(name: str) -> None:
    """The order matters: it indexes the published optimiser's state."""
    model = meta_model(name)
    ours = [(key, list(tensor.shape)) for key, tensor in to_published(model, model.state_dict()).items()]
    assert ours == list(PUBLISHED_MODELS[name]["shapes"].items())


@pytest.mark.parametrize("name", NAMES)
def test_published_to_ours_and_back_is_bit_for_bit(name: str) -> None:
    model, published = load_case(name, torch.float32).model, published_numbers(name)
    assert_same_tensors(to_published(model, from_published(model, published, name)), published)


def test_ours_to_published_and_back_is_bit_for_bit(small_model: VDVAE) -> None:
    state = small_model.state_dict()
    assert_same_tensors(from_published(small_model, to_published(small_model, state), "test"), state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_written_file_reads_back_with_and_without_the_wrappers_prefix(
    small_model: VDVAE, tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "model.th"
    write_published(small_model, small_model.state_dict(), path)
    torch.save({prefix + name: tensor for name, tensor in read_tensors(path).items()}, path)
    assert_same_tensors(from_published(small_model, read_tensors(path), "test"), small_model.state_dict())


def test_a_written_file_holds_published_names_and_nothing_lies_beside_it(small_model: VDVAE, tmp_path: Path) -> None:
    write_published(small_model, small_model.state_dict(), tmp_path / "model.th")
    assert_same_tensors(read_tensors(tmp_path / "model.th"), to_published(small_model, small_model.state_dict()))
    assert [path.name for path in tmp_path.iterdir()] == ["model.th"]


def test_files_of_the_time_before_zip_are_read(small_model: VDVAE, tmp_path: Path) -> None:
    """Torch before 1.6, when the published weights were made, wrote another format."""
    published = to_published(small_model, small_model.state_dict())
    torch.save(published, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    assert_same_tensors(read_tensors(tmp_path / "old.th"), published)


C1 = "decoder.dec_blocks.2.enc.c1.weight"  # the one tensor that is two of ours
BIAS = "decoder.out_net.out_conv.bias"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda tensors: tensors.pop(C1), C1, id="missing"),
        pytest.param(lambda tensors: tensors.update({"decoder.extra": torch.zeros(1)}), "decoder.extra", id="unknown"),
        pytest.param(lambda tensors: tensors.update({BIAS: tensors[BIAS][:-1]}), BIAS, id="shorter"),
        pytest.param(lambda tensors: tensors.update({BIAS: tensors[BIAS][None]}), BIAS, id="more dimensions"),
        pytest.param(lambda tensors: tensors.update({C1: tensors[C1][:, :12]}), C1, id="the state's half alone"),
        pytest.param(lambda tensors: tensors.update({C1: tensors[C1][:1]}), C1, id="right split, wrong rows"),
        pytest.param(lambda tensors: tensors.update({C1: torch.zeros(())}), C1, id="a scalar"),
    ],
)
def test_tensors_of_another_model_are_refused(
    small_model: VDVAE, change: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    tensors = to_published(small_model, small_model.state_dict())
    change(tensors)
    with pytest.raises(InputError) as caught:
        from_published(small_model, tensors, "weights.th")
    message = str(caught.value)
    assert message.startswith("weights.th holds weights of another model")
    assert f"'{named}'" in message
    assert message.endswith(".")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(small_model: VDVAE, tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / "cut.th"
    torch.save(small_model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert refusal(path).endswith("fetch it again.")


@pytest.mark.parametrize("offset", range(0, 360, 15))
def test_a_flipped_byte_is_refused_or_harmless(tmp_path: Path, offset: int) -> None:
    """A damaged pickle makes torch raise nearly anything (IndexError, AssertionError): none of it may escape."""
    path = tmp_path / "damaged.th"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x3F
    path.write_bytes(content)
    try:
        tensors = read_tensors(path)
    except InputError:
        return
    assert all(isinstance(tensor, Tensor) for tensor in tensors.values())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"state": {}, "param_groups": [{"lr": 1e-3}]}, id="an optimiser's state"),
        pytest.param({"epoch": 3, "weight": torch.zeros(2)}, id="a training checkpoint"),
        pytest.param([torch.zeros(2)], id="a list"),
        pytest.param(torch.zeros(2), id="one tensor"),
        pytest.param({}, id="nothing"),
        pytest.param({0: torch.zeros(2)}, id="numbered tensors"),
    ],
)
def test_anything_but_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.th"
    torch.save(content, path)
    assert "no state dict" in refusal(path)


@pytest.mark.parametrize("where", ["model", "state_dict", "model_state_dict", "ema", 0])
def test_a_state_dict_inside_a_checkpoint_is_found_and_the_way_out_works(tmp_path: Path, where: str | int) -> None:
    """As other programs save them, with an optimiser and a count beside the weights."""
    weights = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
    optimiser = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimiser, where: weights, "hyper_parameters": {"lr": 0.1}}, tmp_path / "c.pt")
    sentence = refusal(tmp_path / "c.pt")
    assert f"inside, under {where!r}" in sentence and f"[{where!r}]" in sentence
    torch.save(torch.load(tmp_path / "c.pt", weights_only=True)[where], tmp_path / "w.th")
    assert_same_tensors(read_tensors(tmp_path / "w.th"), weights)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.th"
    path.write_text("<html>404 Not Found</html>\n")
    refusal(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent.th")
    refusal(tmp_path)


class RunsCode:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_the_marker_would_appear_if_the_pickle_were_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "evil.th", tmp_path / "marker"
    torch.save({"a": torch.zeros(1), "b": RunsCode(marker)}, path, _use_new_zipfile_serialization=zipped)
    assert "asks to run code" in refusal(path)
    assert not marker.exists()


def test_a_plain_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.th", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"a": RunsCode(marker)}))
    refusal(path)
    assert not marker.exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    small_model: VDVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(tensors: object, file: BinaryIO) -> None:
        file.write(b"half of the ")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    (tmp_path / "model.th").write_bytes(b"old")
    with pytest.raises(InputError, match=r"model\.th cannot be written .*No space left.*\.$"):
        write_published(small_model, small_model.state_dict(), tmp_path / "model.th")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_missing_folder_is_made(small_model: VDVAE, tmp_path: Path) -> None:
    write_published(small_model, small_model.state_dict(), tmp_path / "absent" / "model.th")
    assert_same_tensors(
        read_tensors(tmp_path / "absent" / "model.th"), to_published(small_model, small_model.state_dict())
    )
