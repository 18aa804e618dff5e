"""The published models: where their authors put the files, what is trusted of them, and the settings they need."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback_files import LoopbackFiles
from loopback_hub import LoopbackHub
from reference_cases import PUBLISHED_MODELS, published_config
from refusals import refused

from vdvae_lr.files.hub_client import HubAccess
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.vdvae.published import KNOWN_SHA256, PUBLISHED, SERVER, FileKind, PublishedModel, published_file

# As the README of the published code has them, with the bounds it states.
FOLDER = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets"
ADDRESSES = {
    "ffhq256": f"{FOLDER}/vdvae-assets/ffhq256-iter-1700000",
    "ffhq1024": f"{FOLDER}/vdvae-assets/ffhq1024-iter-1700000",
    "imagenet32": f"{FOLDER}/vdvae-assets/imagenet32-iter-1700000",
    "imagenet64": f"{FOLDER}/vdvae-assets-2/imagenet64-iter-1600000",
    "cifar10-seed0": f"{FOLDER}/vdvae-assets-2/cifar10-seed0-iter-900000",
    "cifar10-seed1": f"{FOLDER}/vdvae-assets-2/cifar10-seed1-iter-1050000",
    "cifar10-seed2": f"{FOLDER}/vdvae-assets-2/cifar10-seed2-iter-650000",
    "cifar10-seed3": f"{FOLDER}/vdvae-assets-2/cifar10-seed3-iter-1050000",
}
BOUNDS = {
    "ffhq256": (0.4232, "nats/dim"),
    "ffhq1024": (1.678, "nats/dim"),
    "imagenet32": (2.6364, "nats/dim"),
    "imagenet64": (2.44, "nats/dim"),
    "cifar10-seed0": (2.879, "bits/dim"),
    "cifar10-seed1": (2.842, "bits/dim"),
    "cifar10-seed2": (2.898, "bits/dim"),
    "cifar10-seed3": (2.864, "bits/dim"),
}
KINDS: tuple[FileKind, ...] = ("model-ema", "model", "opt")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub, hub.client(tmp_path / "home"):
        yield hub


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackFiles]:
    """The official server, with a file of weights under every address that is documented."""
    torch.save({"weight": torch.zeros(1)}, tmp_path / "some.th")
    content = (tmp_path / "some.th").read_bytes()
    paths = [address.removeprefix(FOLDER) for address in ADDRESSES.values()]
    with LoopbackFiles({f"{path}-{kind}.th": content for path in paths for kind in KINDS}) as site:
        monkeypatch.setattr("vdvae_lr.hub.vdvae.published.SERVER", site.address)
        yield site


def files() -> list[tuple[str, FileKind]]:
    """Every file that is published; of CIFAR-10 the averages alone."""
    return [(name, kind) for name in ADDRESSES for kind in (KINDS if "cifar10" not in name else KINDS[:1])]


def test_every_published_model_has_its_name_its_address_and_its_bound() -> None:
    assert SERVER == FOLDER
    assert {name: f"{FOLDER}/{model.stem}" for name, model in PUBLISHED.items()} == ADDRESSES
    assert {name: (model.bound, model.unit) for name, model in PUBLISHED.items()} == BOUNDS


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_bound_is_known_to_its_last_digit(name: str) -> None:
    model = PUBLISHED[name]
    assert model.last_digit == float(f"1e-{len(str(model.bound).partition('.')[2])}")


@pytest.mark.parametrize(("name", "kind"), files())
def test_a_published_file_comes_from_its_address_once(
    site: LoopbackFiles, tmp_path: Path, name: str, kind: FileKind
) -> None:
    path = published_file(name, kind)
    assert path.is_relative_to(tmp_path / "home")
    assert path.name == f"{ADDRESSES[name].rpartition('/')[2]}-{kind}.th"
    assert published_file(name, kind) == path
    address = f"{ADDRESSES[name]}-{kind}.th".removeprefix(FOLDER)
    assert [(request.method, request.path) for request in site.requests] == [("GET", address)]


@pytest.mark.parametrize("name", [name for name in ADDRESSES if "cifar10" in name])
def test_of_cifar10_only_the_averages_are_published(site: LoopbackFiles, name: str) -> None:
    for kind, words in (("model", "no weights before averaging"), ("opt", "no optimiser state")):
        with refused(f"of '{name}'", words, "leave that setting out"):
            published_file(name, kind)
    assert site.requests == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirror_holds_the_files_by_name(
    site: LoopbackFiles, hub: LoopbackHub, tmp_path: Path, kind: FileKind
) -> None:
    name = PUBLISHED["ffhq256"].file_name(kind)
    assert name == f"ffhq256-iter-1700000-{kind}.th"
    (tmp_path / name).write_bytes(b"in the folder")
    hub.put("tester/mirror", {name: b"in the repository"})
    hub.repositories["tester/mirror"].visibility = "private"
    site.files[f"/files/{name}"] = site.files[f"/vdvae-assets/{name}"]
    assert published_file("ffhq256", kind, str(tmp_path)) == tmp_path / name
    access = HubAccess(token=hub.token)
    assert published_file("ffhq256", kind, "tester/mirror", access).read_bytes() == b"in the repository"
    for slash in ("", "/"):
        assert published_file("ffhq256", kind, f"{site.address}/files{slash}").is_relative_to(tmp_path / "home")
    assert {request.path for request in site.requests} == {f"/files/{name}"}


def test_a_digest_that_is_known_wins_over_what_arrives_first(
    site: LoopbackFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = PUBLISHED["ffhq256"].file_name("model-ema")
    right = hashlib.sha256(site.files[f"/vdvae-assets/{name}"]).hexdigest()
    monkeypatch.setitem(KNOWN_SHA256, name, "0" * 64)
    with refused(f"{name} has the SHA-256 {right}", f"instead of the known one, {'0' * 64}", "--weights_mirror"):
        published_file("ffhq256", "model-ema")
    monkeypatch.setitem(KNOWN_SHA256, name, right)
    path = published_file("ffhq256", "model-ema")
    path.write_bytes(b"changed")
    with refused(f"{name} has", "instead of the known one", f"delete {path}"):
        published_file("ffhq256", "model-ema")


def test_a_digest_that_nobody_knew_is_recorded(site: LoopbackFiles) -> None:
    path = published_file("imagenet32", "model-ema")
    record = path.with_name(path.name + ".sha256").read_text()
    assert f"{path.stat().st_size} bytes from {site.address}/vdvae-assets/{path.name}" in record
    assert hashlib.sha256(path.read_bytes()).hexdigest() in record


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_in_the_place_of_a_file_is_not_kept(site: LoopbackFiles, tmp_path: Path, kind: FileKind) -> None:
    """Such as a proxy answers, with a status of success."""
    name = PUBLISHED["ffhq1024"].file_name(kind)
    right = site.files[f"/vdvae-assets/{name}"]
    site.files[f"/vdvae-assets/{name}"] = b"<html>down for maintenance</html>"
    with refused(f"{site.address}/vdvae-assets/{name}", "was not kept", "fetch it again"):
        published_file("ffhq1024", kind)
    assert [path for path in tmp_path.glob("home/**/*.th*") if not path.name.endswith(".lock")] == []
    site.files[f"/vdvae-assets/{name}"] = right
    assert published_file("ffhq1024", kind).read_bytes() == right


def hyperparameters(model: PublishedModel) -> dict[str, str]:
    return PUBLISHED_MODELS[model.preset]["hps"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_those_of_the_preset_and_of_the_published_code(name: str) -> None:
    model = PUBLISHED[name]
    config = model.config()
    preset = read_presets(model.preset)
    assert {field: value for field, value in vars(config).items() if field in preset} == {
        field: value for field, value in preset.items() if field in vars(config)
    }
    published = published_config(
        hyperparameters(model), input_shift=config.input_shift, input_scale=config.input_scale, bits=config.bits
    )
    assert config == published
    assert config.bits == (5 if name == "ffhq256" else 8)
    assert model.dataset == hyperparameters(model)["dataset"].replace("_", "") == preset["dataset"]
