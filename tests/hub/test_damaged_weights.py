"""A changed byte is refused wherever weights of this program come from, with the file's name and what helps there."""

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from loopback_client import LARGE_UPLOAD_WARNING
from loopback_files import LoopbackFiles
from loopback_hub import LoopbackHub
from refusals import refused
from small_config import SMALL
from small_published import random_model
from training_runs import assert_same_bits

from vdvae_lr import VDVAE
from vdvae_lr.cli.main import main
from vdvae_lr.errors import InputError
from vdvae_lr.files import digests
from vdvae_lr.files.digests import write_digests
from vdvae_lr.hub.model_card import Provenance
from vdvae_lr.hub.torch_files import read_tensors
from vdvae_lr.hub.vdvae.tensors import write_published

NAME = "tester/model"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CHANGED = "is damaged or was changed: its SHA-256 is not the one that SHA256SUMS beside it lists"
AGAIN = "fetch or make it again, or delete SHA256SUMS if you changed the file yourself"
PLACES = {
    "folder": AGAIN,
    "file": AGAIN,
    "exported": AGAIN,
    "pulled": AGAIN,
    "checkpoint": "take an earlier checkpoint",
    "bundled": "install vdvae_lr again",
    "bundled folder": "install vdvae_lr again",
    "repository": "choose another --revision",
    "address": "to fetch it again",
}


def model_of(seed: int = 0) -> VDVAE:
    model = VDVAE(SMALL)
    model.provenance = Provenance(dataset="fashion")
    model.load_state_dict(random_model(seed).state_dict())
    return model.eval()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub, hub.client(tmp_path / "home", token=hub.token):
        yield hub


@pytest.fixture
def site() -> Iterator[LoopbackFiles]:
    with LoopbackFiles({}) as site:
        yield site


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model_of().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def put(place: str, saved: Path, hub: LoopbackHub, site: LoopbackFiles, patch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Bring the folder `saved` to a place; what the weights are called there, and the folder that can be damaged."""
    folder = saved.parent / "place" / "folder"
    match place:
        case "folder" | "file":
            shutil.copytree(saved, folder)
        case "exported":
            assert main(["export", str(saved), str(folder)]) == 0
        case "pulled":
            hub.put(NAME, {path.name: path.read_bytes() for path in saved.iterdir()})
            assert main(["pull", NAME, str(folder)]) == 0
        case "checkpoint":
            folder = saved.parent / "run" / "checkpoints" / "step-00000001"
            shutil.copytree(saved, folder)
            (folder / WEIGHTS).rename(folder / "ema.safetensors")
            write_digests(folder, (CONFIG, "ema.safetensors"))
        case "bundled" | "bundled folder":
            folder = saved.parent / "models" / "tiny"
            shutil.copytree(saved, folder)
            patch.setattr("vdvae_lr.files.bundled._BASES", (saved.parent,))
        case "repository":
            shutil.copytree(saved, folder)
            return NAME, folder
        case "address":
            shutil.copytree(saved, folder)
            return f"{site.address}/a/{WEIGHTS}", folder
    names = {"file": folder / WEIGHTS, "checkpoint": saved.parent / "run", "bundled": "tiny"}
    return str(names.get(place, folder)), folder


def publish(folder: Path, hub: LoopbackHub, site: LoopbackFiles) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.put(NAME, files)
    site.files.update({f"/a/{name}": content for name, content in files.items()})


def positions(content: bytes, name: str) -> list[int]:
    """Bytes of the header, and the first, a middle and the last of the tensors; of settings all kinds of places."""
    if name == CONFIG:
        return [0, len(content) // 3, content.index(b'"input_shift"') + 16, len(content) - 1]
    start = 8 + struct.unpack("<Q", content[:8])[0]
    return [0, 9, start // 2, start - 1, start, (start + len(content)) // 2, len(content) - 1]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("place", PLACES)
def test_a_changed_byte_is_refused(
    saved: Path, hub: LoopbackHub, site: LoopbackFiles, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    called, folder = put(place, saved, hub, site, monkeypatch)
    damaged = folder / ("ema.safetensors" if place == "checkpoint" and name == WEIGHTS else name)
    content, sentences = damaged.read_bytes(), []
    for number, position in enumerate(positions(content, name)):
        spoilt = bytearray(content)
        spoilt[position] ^= 1 << number % 8
        damaged.write_bytes(spoilt)
        publish(folder, hub, site)
        called = called.partition("?")[0] + (f"?{number}" if place == "address" else "")
        with refused(damaged.name, "", "") as caught:
            VDVAE.from_pretrained(called)
        sentences.append(str(caught.value))
    told = [sentence for sentence in sentences if CHANGED in sentence]
    assert all(PLACES[place] in sentence for sentence in told)
    rest = [sentence for sentence in sentences if sentence not in told]
    assert told and (rest == [] or (place == "address" and all("it was not kept" in each for each in rest)))
    damaged.write_bytes(content)
    publish(folder, hub, site)
    again = VDVAE.from_pretrained(called.replace("?", "?whole"))
    assert_same_bits(dict(again.state_dict()), dict(random_model(0).state_dict()))


@pytest.mark.parametrize("place", ["folder", "repository", "address", "pulled"])
def test_weights_without_digests_load(
    saved: Path, hub: LoopbackHub, site: LoopbackFiles, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As earlier versions saved them; a folder that is pulled has digests from then on."""
    (saved / "SHA256SUMS").unlink()
    called, folder = put(place, saved, hub, site, monkeypatch)
    publish(folder, hub, site)
    for _ in range(2):
        assert_same_bits(dict(VDVAE.from_pretrained(called).state_dict()), dict(random_model(0).state_dict()))
    assert (folder / "SHA256SUMS").is_file() == (place == "pulled")


def test_a_repository_without_digests_is_asked_for_them_once(saved: Path, hub: LoopbackHub) -> None:
    (saved / "SHA256SUMS").unlink()
    hub.put(NAME, {path.name: path.read_bytes() for path in saved.iterdir()})
    for _ in range(3):
        VDVAE.from_pretrained(NAME)
    assert len([request for request in hub.requests if "SHA256SUMS" in request.path]) == 1


@pytest.mark.parametrize("sums", [True, False])
def test_a_repository_loads_without_network(
    saved: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, sums: bool
) -> None:
    """Also from a cache that has never heard of digests."""
    hub.put(NAME, {path.name: path.read_bytes() for path in saved.iterdir() if sums or path.name != "SHA256SUMS"})
    with monkeypatch.context() as patch:
        if not sums:
            patch.setattr("vdvae_lr.hub.sources.optional_repository_file", lambda *arguments: None)
        VDVAE.from_pretrained(NAME)
    seen = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_same_bits(dict(VDVAE.from_pretrained(NAME).state_dict()), dict(random_model(0).state_dict()))
    assert len(hub.requests) == seen


def test_a_server_that_answers_everything_with_a_page_is_no_hindrance(
    saved: Path, hub: LoopbackHub, site: LoopbackFiles
) -> None:
    publish(saved, hub, site)
    site.files["/a/SHA256SUMS"] = b"<html>not found</html>"
    for _ in range(2):
        loaded = VDVAE.from_pretrained(f"{site.address}/a/{WEIGHTS}")
        assert_same_bits(dict(loaded.state_dict()), dict(random_model(0).state_dict()))


def test_another_version_at_an_address_comes_with_its_own_digests(saved: Path, hub: LoopbackHub) -> None:
    with LoopbackFiles({f"/a/{path.name}": path.read_bytes() for path in saved.iterdir()}) as site:
        VDVAE.from_pretrained(f"{site.address}/a/{WEIGHTS}")
        model_of(1).save_pretrained(saved)
        site.files.update({f"/a/{path.name}": path.read_bytes() for path in saved.iterdir()})
        again = VDVAE.from_pretrained(f"{site.address}/a/{WEIGHTS}", force_download=True)
    assert_same_bits(dict(again.state_dict()), dict(random_model(1).state_dict()))


def test_a_pull_of_a_repository_that_does_not_belong_together_is_refused(
    saved: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    hub.put(NAME, files | {WEIGHTS: files[WEIGHTS][:-1] + bytes([files[WEIGHTS][-1] ^ 1])})
    assert main(["pull", NAME, str(saved.parent / "pulled")]) == 2
    assert "its SHA-256 is not the one that SHA256SUMS beside it lists" in capsys.readouterr().err
    assert not (saved.parent / "pulled").exists()


@pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING)
def test_a_push_brings_its_digests_and_replaces_the_earlier_ones(saved: Path, hub: LoopbackHub) -> None:
    for seed in (1, 0):
        model_of(seed).push_to_hub(NAME)
    assert hub.files(NAME)["SHA256SUMS"] == (saved / "SHA256SUMS").read_bytes()
    VDVAE.from_pretrained(NAME)


def test_averages_that_are_listed_and_gone_are_missed(saved: Path, tmp_path: Path) -> None:
    """Else the weights before averaging would be taken for them."""
    folder = tmp_path / "run" / "checkpoints" / "step-00000001"
    shutil.copytree(saved, folder)
    shutil.copy(folder / WEIGHTS, folder / "ema.safetensors")
    write_digests(folder, (CONFIG, WEIGHTS, "ema.safetensors"))
    (folder / "ema.safetensors").unlink()
    with refused(f"{folder}/ema.safetensors", "is missing, though SHA256SUMS lists it", "take an earlier checkpoint"):
        VDVAE.from_pretrained(tmp_path / "run")
    VDVAE.from_pretrained(tmp_path / "run", ema=False)


def test_each_file_is_hashed_once_a_load(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    digest = digests.file_sha256
    monkeypatch.setattr(digests, "file_sha256", lambda path: hashed.append(path.name) or digest(path))
    VDVAE.from_pretrained(saved)
    assert sorted(hashed) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("spoil", [lambda content: b"", lambda content: content[:100], lambda content: content[:-1]])
def test_a_cut_file_without_digests_is_refused(saved: Path, spoil: Callable[[bytes], bytes]) -> None:
    (saved / "SHA256SUMS").unlink()
    (saved / WEIGHTS).write_bytes(spoil((saved / WEIGHTS).read_bytes()))
    with refused(f"{saved}/{WEIGHTS}", "is damaged", "fetch or make it again"):
        VDVAE.from_pretrained(saved)


def test_a_changed_byte_of_a_published_file_never_changes_a_weight(tmp_path: Path) -> None:
    """torch writes checksums into its files, but does not look at them."""
    path = tmp_path / "mine.th"
    write_published(random_model(0), random_model(0).state_dict(), path)
    content, whole = path.read_bytes(), read_tensors(path)
    refusals = 0
    for position in range(7, len(content), len(content) // 60):
        spoilt = bytearray(content)
        spoilt[position] ^= 0x10
        path.write_bytes(spoilt)
        try:
            found = read_tensors(path)
        except InputError as error:
            assert str(error).startswith(f"weights file {path} ") and "fetch it again" in str(error)
            refusals += 1
        else:  # between the tensors, where nothing is
            assert_same_bits(found, whole)
    assert refusals > 20


def test_a_published_file_without_checksums_loads(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        write_published(random_model(0), random_model(0).state_dict(), tmp_path / "mine.th")
    finally:
        torch.serialization.set_crc32_options(True)
    again = VDVAE.from_pretrained(tmp_path / "mine.th", config=SMALL)
    assert_same_bits(dict(again.state_dict()), dict(random_model(0).state_dict()))
