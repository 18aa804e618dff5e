"""Repositories of somebody who means harm, or who broke them: one sentence, no code run, a cache that is sound."""

import json
import pickle
import resource
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from loopback_files import LoopbackFiles
from loopback_hub import LoopbackHub
from loopback_repositories import StoredFile
from refusals import refused
from safetensors.torch import save
from small_config import SMALL
from small_published import NAME as SMALL_NAME
from small_published import publish, random_model
from training_runs import assert_same_bits

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.weight_folder import write_config, write_weights

NAME = "stranger/model"
LONGEST_S = 4.0  # of this process's own time; about one on a machine that does nothing else
MORE_MEMORY = 1 << 30  # bytes that a refusal may ask for


class RunsCode:
    """Unpickled, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@cache
def right() -> dict[str, bytes]:
    """The files of a small model that loads."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_config(folder, SMALL, "images")
        write_weights(folder / "model.safetensors", random_model(0).state_dict())
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors() -> dict[str, torch.Tensor]:
    return dict(random_model(0).state_dict())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.chdir(tmp_path)
    with LoopbackHub() as hub, hub.client(tmp_path / "home"):
        yield hub


@contextmanager
def modest() -> Iterator[None]:
    """Inside, asking for a lot of memory is an error; afterwards, a lot of time has not passed."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE_MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert time.process_time() - before < LONGEST_S


def assert_refused(hub: LoopbackHub, files: dict[str, bytes], cause: str, remedy: str = "fetch it again") -> None:
    """Pushed, the files are refused; and once the right ones are pushed, those load."""
    hub.put(NAME, right() | files)
    with modest(), refused("models--stranger--model", cause, remedy):
        VDVAE.from_pretrained(NAME)
    hub.put(NAME, right())
    assert_same_bits(VDVAE.from_pretrained(NAME).state_dict(), tensors())


def config(**changes: Any) -> bytes:
    content = json.loads(right()["config.json"])
    return json.dumps(content | {"model": content["model"] | changes}).encode()


def test_the_right_files_load(hub: LoopbackHub) -> None:
    hub.put(NAME, right())
    with modest():
        model = VDVAE.from_pretrained(NAME)
    assert_same_bits(model.state_dict(), tensors())


def test_the_memory_of_a_large_model_would_be_noticed() -> None:
    with pytest.raises(RuntimeError, match="memory"), modest():
        torch.empty(2 * MORE_MEMORY, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.th", "model.pt", "model.pkl"])
def test_a_repository_of_pickles_is_refused_and_none_is_fetched(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    evil = pickle.dumps(RunsCode(tmp_path / "marker"))
    hub.put(NAME, {name: evil, "config.json": right()["config.json"]})
    with refused(f"repository {NAME}", "has no model.safetensors; only weights that this program wrote", "run code"):
        VDVAE.from_pretrained(NAME)
    assert not (tmp_path / "marker").exists()
    assert [request.path for request in hub.requests if name in request.path] == []
    assert [path for path in tmp_path.glob("home/**/blobs/*") if path.read_bytes() == evil] == []
    hub.put(NAME, right())
    assert_same_bits(VDVAE.from_pretrained(NAME).state_dict(), tensors())


def evil_file(folder: Path, kind: str) -> bytes:
    """A file of weights that, unpickled, makes folder/marker."""
    content = {"weight": torch.zeros(1), "more": RunsCode(folder / "marker")}
    if kind == "plain pickle":
        return pickle.dumps(content)
    torch.save(content, folder / "evil", _use_new_zipfile_serialization=kind == "zip")
    return (folder / "evil").read_bytes()


def test_a_pickle_under_a_safe_name_is_refused(hub: LoopbackHub, tmp_path: Path) -> None:
    for kind in ("zip", "legacy", "plain pickle"):
        assert_refused(hub, {"model.safetensors": evil_file(tmp_path, kind)}, "is damaged", "fetch or make it again")
        assert_refused(hub, {"config.json": evil_file(tmp_path, kind)}, "is not a model's settings")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_a_file_at_an_address_that_would_run_code_is_refused(hub: LoopbackHub, tmp_path: Path, kind: str) -> None:
    with LoopbackFiles({"/weights.th": evil_file(tmp_path, kind)}) as site:
        with refused(f"{site.address}/weights.th", "it was not kept: weights file", "fetch it again"):
            VDVAE.from_pretrained(f"{site.address}/weights.th", config=SMALL)
        assert not (tmp_path / "marker").exists()
        torch.save({"weight": torch.zeros(1)}, tmp_path / "other")
        site.files["/weights.th"] = (tmp_path / "other").read_bytes()
        with refused("weights.th", "holds weights of another model", "preset"):
            VDVAE.from_pretrained(f"{site.address}/weights.th", config=SMALL)


@pytest.mark.parametrize("place", ["folder", "address", "repository"])
def test_a_mirror_that_would_run_code_is_refused(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    file_name = publish(monkeypatch, tmp_path / "mirror").file_name("model-ema")
    good, evil = (tmp_path / "mirror" / file_name).read_bytes(), evil_file(tmp_path, "zip")
    with LoopbackFiles({}) as site:
        for content in (evil, good):
            site.files[f"/{file_name}"] = content
            (tmp_path / "mirror" / file_name).write_bytes(content)
            hub.put("stranger/mirror", {file_name: content})
            mirror = {"folder": str(tmp_path / "mirror"), "address": site.address, "repository": "stranger/mirror"}
            sources = WeightSettings(weights_mirror=mirror[place])
            if content == evil:
                with refused(file_name, "asks to run code", "a source you trust"):
                    VDVAE.from_pretrained(SMALL_NAME, sources=sources)
    assert not (tmp_path / "marker").exists()
    with LoopbackFiles({f"/{file_name}": good}) as site:
        sources = WeightSettings(weights_mirror=mirror[place] if place != "address" else site.address)
        assert_same_bits(VDVAE.from_pretrained(SMALL_NAME, sources=sources).state_dict(), tensors())


@pytest.mark.parametrize(
    "name", ["../outside.png", "figures/../../../../outside.png", "/outside.png", "..", "figures/..", "a\\..\\outside"]
)
def test_names_that_lead_out_of_the_repository_lead_nowhere(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.put(NAME, right() | {name: b"outside"})
    entry = StoredFile(b"outside", large=False).entry(name)
    hub.repositories[NAME].listing = [entry, *hub.repositories[NAME].entries(hub.repositories[NAME].refs["main"])]
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert_same_bits(VDVAE.from_pretrained(NAME).state_dict(), tensors())
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert [path for path in written if not path.is_relative_to(tmp_path / "home" / "hub")] == []
    assert [path for path in written if path.read_bytes() == b"outside"] == []


DEEP = b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b', "dataset": ""}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"<html>",
        b"[]",
        b"null",
        b'"model"',
        b'{"model": {}}',
        b'{"dataset": ""}',
        b'{"model": [1], "dataset": ""}',
        b'{"model": "width", "dataset": ""}',
        b'{"model": {}, "dataset": 5}',
        b'{"model": {}, "dataset": null}',
        b'{"model": {"width": ' + b"9" * 5000 + b'}, "dataset": ""}',
        right()["config.json"][:-10],
        right()["config.json"] + b" " * (2 << 20),
        DEEP,
    ],
    ids=range(16),
)
def test_settings_that_are_none_are_refused(hub: LoopbackHub, content: bytes) -> None:
    assert_refused(hub, {"config.json": content}, "config.json is not a model's settings")


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"widht": 12}, "did you mean 'width'?"),
        ({"a\nb\x1b[2J": 1}, "there is no setting"),
        ({"x" * 500_000: 1}, "there is no setting"),
        ({"width": "12"}, "width is '12'; it must be a whole number"),
        ({"width": True}, "width is True"),
        ({"width": None}, "width is None"),
        ({"width": 12.0}, "width is 12.0"),
        ({"width": [[[12]]]}, "width is [[[12]]]"),
        ({"width": "x" * 500_000}, "it must be a whole number"),
        ({"enc_blocks": 8}, "enc_blocks is 8; it must be text"),
        ({"likelihood": "other"}, "it must be one of normalised, published_5bit"),
        ({"likelihood": []}, "it must be one of normalised, published_5bit"),
        ({"input_shift": float("nan")}, "input_shift"),
        ({"input_shift": float("inf")}, "input_shift"),
        ({"input_shift": 10**400}, "input_shift"),
        ({"input_shift": -1e300}, "input_shift"),
        ({"input_scale": float("nan")}, "input_scale"),
        ({"input_scale": float("-inf")}, "input_scale"),
        ({"input_scale": 10**400}, "input_scale"),
        ({"bottleneck_multiple": 1e9}, "bottleneck_multiple"),
        ({"bottleneck_multiple": float("nan")}, "bottleneck_multiple"),
        ({"width": 10**9}, "width is 1000000000; it must be at most 65,536"),
        ({"width": 0}, "width is 0"),
        ({"width": -1}, "width is -1"),
        ({"width": 10**4000}, "width"),
        ({"zdim": 10**9}, "zdim is 1000000000"),
        ({"num_mixtures": 10**9}, "num_mixtures is 1000000000"),
        ({"image_size": 10**9}, "image_size is 1000000000"),
        ({"image_channels": 10**9}, "image_channels is 1000000000"),
        ({"bits": 64}, "bits is 64"),
        ({"enc_blocks": "8x999999999"}, "enc_blocks"),
        ({"enc_blocks": "8x99999"}, "enc_blocks asks for 99999 blocks"),
        ({"dec_blocks": ",".join(["8x99"] * 50_000)}, "dec_blocks asks for"),
        ({"dec_blocks": "1x1," + "x" * 500_000}, "is not a block"),
        ({"dec_blocks": "1x1,\n\x1b[2J"}, "is not a block"),
        ({"enc_blocks": ""}, "is not a block"),
        ({"enc_blocks": "8d0"}, "is not a block"),
        ({"enc_blocks": "8x1,8d3"}, "does not divide"),
        ({"custom_width_str": "8:99999999999"}, "is not a width"),
        ({"custom_width_str": "x\n" * 200_000}, "is not a width"),
    ],
    ids=range(40),
)
def test_absurd_settings_are_refused(hub: LoopbackHub, changes: dict[str, Any], cause: str) -> None:
    assert_refused(hub, {"config.json": config(**changes)}, cause, "config.json describes no model that can be made")


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 65_536, "num_mixtures": 65_536},
        {"bottleneck_multiple": 65_536.0},
        {"zdim": 65_536},
        {"image_size": 65_536, "enc_blocks": "65536x1", "dec_blocks": "65536x1", "no_bias_above": 65_536},
        {"dec_blocks": "1x300", "image_size": 1, "enc_blocks": "1x300", "width": 65_536},
        {"image_channels": 1},
        {"no_bias_above": 0},
        {"width": 13},
    ],
    ids=range(8),
)
def test_settings_of_another_model_than_the_weights_are_refused_before_memory_is_taken(
    hub: LoopbackHub, changes: dict[str, Any]
) -> None:
    assert_refused(hub, {"config.json": config(**changes)}, "does not fit the model", "the settings it was saved with")


def test_a_whole_model_of_strangers_does_not_ask_for_memory(hub: LoopbackHub) -> None:
    """A few bytes that announce 100 GB, in both files alike."""
    name = "mixture_output.weight"
    shape = [30, 65_536, 1, 1]
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 30 * 65_536 * 4]}}).encode()
    lying = struct.pack("<Q", len(header)) + header
    files = {"config.json": config(width=65_536), "model.safetensors": lying}
    assert_refused(hub, files, "model.safetensors is damaged", "fetch or make it again")


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(change: dict[str, Any]) -> bytes:
    """The right weights under a header of which some tensors are described otherwise."""
    header, body = header_of(right()["model.safetensors"])
    text = json.dumps({name: about | change for name, about in header.items() if name != "__metadata__"}).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        bytes(100),
        right()["model.safetensors"][:500],
        right()["model.safetensors"][:-1],
        right()["model.safetensors"] + b"more",
        struct.pack("<Q", 1 << 60) + right()["model.safetensors"][8:],
        struct.pack("<Q", 90_000_000) + right()["model.safetensors"][8:],
        with_header({"shape": [1 << 40]}),
        with_header({"shape": [-1]}),
        with_header({"data_offsets": [0, 1 << 60]}),
        with_header({"data_offsets": [8, 0]}),
        with_header({"dtype": "PICKLE"}),
        with_header({"dtype": 5}),
    ],
    ids=range(14),
)
def test_damaged_weights_are_refused(hub: LoopbackHub, content: bytes) -> None:
    assert_refused(hub, {"model.safetensors": content}, "model.safetensors is damaged", "fetch or make it again")


def test_weights_that_are_not_all_and_only_those_of_the_model_are_refused(hub: LoopbackHub) -> None:
    first = next(iter(tensors()))
    without = {name: tensor for name, tensor in tensors().items() if name != first}
    other = without | {first: torch.zeros(1, 2, 3)}
    for content, cause in (
        (without, f"'{first}' is missing"),
        (tensors() | {"extra\n\x1b[2J": torch.zeros(1)}, "is not part of this model"),
        (tensors() | {"x" * 100_000: torch.zeros(1)}, "is not part of this model"),
        ({}, "is missing"),
        (other, f"'{first}' has shape (1, 2, 3), not"),
    ):
        assert_refused(hub, {"model.safetensors": save(content)}, cause, "use the settings it was saved with")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_real_numbers_are_refused(hub: LoopbackHub, dtype: torch.dtype) -> None:
    content = save({name: tensor.to(dtype) for name, tensor in tensors().items()})
    assert_refused(hub, {"model.safetensors": content}, f"as {dtype}, which is no weight")
