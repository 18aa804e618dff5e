"""Every name that a person may call weights by leads to what the table says, in the order it says, or to a sentence."""

import io
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from loopback_files import LoopbackFiles
from loopback_hub import LoopbackHub
from reference_cases import PUBLISHED_MODELS
from refusals import refused
from small_config import SMALL
from small_published import NAME as SMALL_NAME
from small_published import publish, random_model
from training_runs import assert_same_bits

from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.hub_client import HubAccess
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import WeightSettings, WeightSource, find_weights, settings_of
from vdvae_lr.hub.vdvae.published import PUBLISHED
from vdvae_lr.hub.vdvae.tensors import write_published
from vdvae_lr.hub.weight_folder import write_config, write_weights

REPOSITORY = "tester/lrvdvae-ffhq256"
FILE_NAMES = {name: model.file_name("model-ema") for name, model in PUBLISHED.items()}


@cache
def weights(seed: int = 0) -> dict[str, bytes]:
    """The files of a small model, trained on `set-SEED`."""
    with TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in save(Path(folder) / "model", seed).iterdir()}


def save(folder: Path, seed: int = 0, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, SMALL, f"set-{seed}")
    write_weights(folder / name, random_model(seed).state_dict())
    return folder


def assert_is(name: str | Path, seed: int = 0, *, ema: bool = True, sources: WeightSettings | None = None) -> None:
    """Loaded the whole way, `name` is the model of that seed."""
    model = VDVAE.from_pretrained(name, ema=ema, sources=sources, config=SMALL)
    assert model.config == SMALL
    assert_same_bits(model.state_dict(), random_model(seed).state_dict())


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def here(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, a cache of its own, and no environment that says where weights are."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("VDVAE_LR_MIRROR", raising=False)
    monkeypatch.delenv("VDVAE_LR_REPOSITORY", raising=False)
    with hub.client(tmp_path / "home"):
        yield tmp_path / "here"


def holding(name: str) -> bytes:
    """A file of weights with one tensor of that name."""
    file = io.BytesIO()
    torch.save({name: torch.zeros(1)}, file)
    return file.getvalue()


def held(source: WeightSource) -> str:
    return next(iter(torch.load(source.path, weights_only=True)))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackFiles]:
    """The official server: every published file holds its own name. /mirror has other ones, /ours a model of ours."""
    names = [f"/{model.stem}-{kind}.th" for model in PUBLISHED.values() for kind in ("model-ema", "model")]
    official = {name: holding(name) for name in names}
    mirror = {f"/mirror/{name.rpartition('/')[2]}": holding("mirror") for name in names}
    ours = {f"/ours/{name}": content for name, content in weights().items()}
    with LoopbackFiles(official | mirror | ours) as site:
        monkeypatch.setattr("vdvae_lr.hub.vdvae.published.SERVER", site.address)
        yield site


def run_folder(folder: Path) -> Path:
    """A run with two checkpoints: weights of seeds 1 and 2, averages of 11 and 12."""
    for step in (1, 2):
        checkpoint = save(folder / "checkpoints" / f"step-{step:08d}", step)
        write_weights(checkpoint / "ema.safetensors", random_model(10 + step).state_dict())
    return folder


def test_a_folder_of_weights(here: Path) -> None:
    source = find_weights(str(save(here / "folder")))
    assert source == WeightSource(here / "folder" / "model.safetensors", SMALL, "set-0")
    assert_is("folder")
    assert_is(here / "folder", ema=False)


def test_a_run_is_its_newest_checkpoint_and_a_checkpoint_itself(here: Path) -> None:
    run = run_folder(here / "runs" / "fine")
    for name, step in (("runs/fine", 2), ("runs/fine/checkpoints/step-00000001", 1)):
        folder = run / "checkpoints" / f"step-{step:08d}"
        averaged, plain = find_weights(name), find_weights(name, ema=False)
        assert (averaged.path.resolve(), averaged.averaged) == (folder / "ema.safetensors", True)
        assert (plain.path.resolve(), plain.averaged) == (folder / "model.safetensors", False)
        assert averaged.config == plain.config == SMALL
        assert_is(name, 10 + step)
        assert_is(name, step, ema=False)


def test_a_file_in_the_published_format(here: Path) -> None:
    write_published(random_model(0), random_model(0).state_dict(), here / "mine.th")
    assert find_weights("mine.th") == WeightSource(Path("mine.th"))
    assert_is("mine.th")
    shutil.copy("mine.th", "mine.pt")
    assert_is("mine.pt")


def test_a_file_of_ours_with_and_without_its_settings(here: Path) -> None:
    save(here / "folder", name="other.safetensors")
    assert find_weights("folder/other.safetensors").config == SMALL
    (here / "folder" / "config.json").unlink()
    assert find_weights("folder/other.safetensors") == WeightSource(Path("folder/other.safetensors"))
    assert_is("folder/other.safetensors")
    with refused("folder/other.safetensors", "without its model's settings", "--hps"):
        VDVAE.from_pretrained("folder/other.safetensors")


def test_a_bundled_model() -> None:
    source = find_weights("fashion")
    assert source.path == bundled_folder("models") / "fashion" / "model.safetensors"
    assert (source.dataset, source.published, source.repository) == ("fashion", None, "")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_is_fetched_from_the_official_server(site: LoopbackFiles, name: str) -> None:
    source = find_weights(name)
    model = PUBLISHED[name]
    assert held(source) == f"/{model.stem}-model-ema.th"
    assert source == WeightSource(source.path, published=model, averaged=True)
    if model.complete:
        source = find_weights(name, ema=False)
        assert held(source) == f"/{model.stem}-model.th"
        assert (source.published, source.averaged) == (model, False)
    else:
        with refused(f"of '{name}'", "only the averaged weights are published", "leave that setting out"):
            find_weights(name, ema=False)


def test_a_published_name_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, tmp_path / "mirror")
    sources = WeightSettings(weights_mirror=str(tmp_path / "mirror"))
    assert_is(SMALL_NAME, 0, sources=sources)
    assert_is(SMALL_NAME, 1, sources=sources, ema=False)
    assert VDVAE.from_pretrained(SMALL_NAME, sources=sources).dataset == "folder"


def test_a_repository(hub: LoopbackHub) -> None:
    commit = hub.put("tester/model", weights())
    source = find_weights("tester/model")
    assert source == WeightSource(source.path, SMALL, "set-0", repository="tester/model")
    assert source.path.parent.name == commit
    assert_is("tester/model")


def test_a_revision_of_a_repository(hub: LoopbackHub) -> None:
    first, second = hub.put(REPOSITORY, weights(1)), hub.put(REPOSITORY, weights(2))
    hub.repositories[REPOSITORY].refs["v1"] = first
    for revision, step in (("", 2), ("main", 2), ("v1", 1), (first, 1), (second, 2)):
        settings = WeightSettings(revision=revision, lr_repository=REPOSITORY)
        for name in (REPOSITORY, "lrvdvae-ffhq256"):
            assert find_weights(name, settings).dataset == f"set-{step}"
    assert find_weights(REPOSITORY, WeightSettings("v1"), access=HubAccess(second)).dataset == "set-2"
    assert_same_bits(VDVAE.from_pretrained(REPOSITORY, revision="v1").state_dict(), random_model(1).state_dict())


def test_settings_and_weights_are_of_one_commit_though_the_branch_moves(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hub.put("tester/model", weights(1))
    strike = hub.strike

    def moving(method: str, path: str) -> object:
        if method == "HEAD" and path.endswith("model.safetensors"):
            hub.put("tester/model", weights(2))
        return strike(method, path)

    monkeypatch.setattr(hub, "strike", moving)
    source = find_weights("tester/model")
    assert len(hub.repositories["tester/model"].commits) == 3
    assert source.path.parent.name == first
    assert source.path.read_bytes() == weights(1)["model.safetensors"]


def test_a_private_repository_takes_a_token(hub: LoopbackHub) -> None:
    hub.put("tester/model", weights())
    hub.repositories["tester/model"].visibility = "private"
    with refused("repository tester/model", "for this login", "hf auth login"):
        VDVAE.from_pretrained("tester/model")
    assert VDVAE.from_pretrained("tester/model", token=hub.token).dataset == "set-0"
    assert VDVAE.from_pretrained("tester/model", token=hub.token, local_files_only=True).dataset == "set-0"


@pytest.mark.parametrize("by", ["setting", "environment", "both"])
@pytest.mark.parametrize("pattern", [REPOSITORY, "tester/lrvdvae-{name}"])
def test_weights_fine_tuned_with_lr(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, by: str, pattern: str) -> None:
    hub.put(REPOSITORY, weights(3))
    if by != "setting":
        monkeypatch.setenv("VDVAE_LR_REPOSITORY", pattern if by == "environment" else "tester/absent")
    settings = WeightSettings(lr_repository="" if by == "environment" else pattern)
    assert find_weights("lrvdvae-ffhq256", settings).repository == REPOSITORY
    assert_is("lrvdvae-ffhq256", 3, sources=settings)


@pytest.mark.parametrize("place", ["folder", "address", "repository"])
@pytest.mark.parametrize("by", ["setting", "environment"])
def test_a_mirror_is_asked_and_the_official_server_is_not(
    site: LoopbackFiles, hub: LoopbackHub, here: Path, monkeypatch: pytest.MonkeyPatch, place: str, by: str
) -> None:
    mirror = {"folder": "files", "address": f"{site.address}/mirror/", "repository": "tester/mirror"}[place]
    (here / "files").mkdir()
    (here / "files" / FILE_NAMES["ffhq256"]).write_bytes(holding("mirror"))
    hub.put("tester/mirror", {FILE_NAMES["ffhq256"]: holding("mirror")})
    if by == "environment":
        monkeypatch.setenv("VDVAE_LR_MIRROR", mirror)
    source = find_weights("ffhq256", WeightSettings(weights_mirror=mirror if by == "setting" else ""))
    assert source.path.name == FILE_NAMES["ffhq256"]
    assert held(source) == "mirror"
    assert source.published == PUBLISHED["ffhq256"]
    assert [request.path for request in site.requests if not request.path.startswith("/mirror")] == []


def test_a_private_mirror_takes_a_token(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, tmp_path / "mirror")
    hub.put("tester/mirror", {path.name: path.read_bytes() for path in (tmp_path / "mirror").glob("*.th")})
    hub.repositories["tester/mirror"].visibility = "private"
    sources = WeightSettings(weights_mirror="tester/mirror")
    with refused("repository tester/mirror", "for this login", "hf auth login"):
        VDVAE.from_pretrained(SMALL_NAME, sources=sources)
    model = VDVAE.from_pretrained(SMALL_NAME, sources=sources, token=hub.token)
    assert_same_bits(model.state_dict(), random_model(0).state_dict())


def test_what_a_mirror_lacks_is_named(site: LoopbackFiles, hub: LoopbackHub, here: Path) -> None:
    (here / "files").mkdir()
    hub.put("tester/mirror", {"other.th": b""})
    name = FILE_NAMES["imagenet64"]
    with refused(f"files/{name}", "does not exist", "--weights_mirror"):
        find_weights("imagenet64", WeightSettings(weights_mirror="files"))
    with refused(f"{site.address}/{name} answers 404", "no such file", "--weights_mirror"):
        find_weights("imagenet64", WeightSettings(weights_mirror=site.address))
    with refused("repository tester/mirror", f"has no {name}", "check what it is called"):
        find_weights("imagenet64", WeightSettings(weights_mirror="tester/mirror"))
    for mirror in ("absent", "/no/such/folder"):
        with refused(f"'{mirror}'", "no folder here", "--weights_mirror"):
            find_weights("imagenet64", WeightSettings(weights_mirror=mirror))
    for mirror in ("http://mirror.invalid/files", "ftp://127.0.0.1/files"):
        with refused(mirror, "no https address", "can be changed"):
            find_weights("imagenet64", WeightSettings(weights_mirror=mirror))


def test_a_file_at_an_address(site: LoopbackFiles, here: Path) -> None:
    write_published(random_model(4), random_model(4).state_dict(), here / "made.th")
    site.files["/some/mine.th"] = (here / "made.th").read_bytes()
    assert_is(f"{site.address}/some/mine.th?signature=abc", 4)
    assert [request.path for request in site.requests] == ["/some/mine.th"]
    address = f"{site.address}/ours/model.safetensors"
    source = find_weights(address)
    assert (source.config, source.dataset) == (SMALL, "set-0")
    assert_is(address)
    assert find_weights(f"{address}?version=2").path != source.path
    del site.files["/ours/config.json"]
    with refused(f"{site.address}/ours/config.json", "answers 404", "put the config.json of these weights"):
        find_weights(f"{address}?version=3")


def test_a_published_file_at_an_address_is_known_by_its_name(site: LoopbackFiles) -> None:
    source = find_weights(f"{site.address}/mirror/{FILE_NAMES['cifar10-seed1']}")
    assert source.published == PUBLISHED["cifar10-seed1"]


@pytest.mark.parametrize(
    ("address", "cause", "remedy"),
    [
        ("http://example.invalid/a.th", "no https address", "can be changed"),
        ("ftp://127.0.0.1/a.th", "no https address", "can be changed"),
        ("file:///tmp/a.th", "no https address", "can be changed"),
        ("https://127.0.0.1:1/a.zip", "no file of weights", ".th or .safetensors"),
        ("https://127.0.0.1:1/", "no file of weights", ".th or .safetensors"),
        ("https://127.0.0.1:1/.th", "no file of weights", ".th or .safetensors"),
        ("https://127.0.0.1:1/a.th", "Connection refused", "check the address"),
        ("https://[::1/a.th", "no https address", "can be changed"),
        ("https://127.0.0.1:x/a.th", "no address", "check the address"),
        (f"https://127.0.0.1:1/{'a' * 300}.th", "too long", "choose another"),
    ],
)
def test_an_address_of_no_use_is_named(address: str, cause: str, remedy: str) -> None:
    with refused(address[-20:], cause, remedy):
        find_weights(address)


def test_what_is_on_this_machine_wins(hub: LoopbackHub, site: LoopbackFiles, here: Path) -> None:
    hub.put(REPOSITORY, weights(1))
    for name in ("ffhq256", "fashion", "lrvdvae-ffhq256", REPOSITORY):
        save(here / name, 5)
        assert_is(name, 5)
        shutil.rmtree(here / name)
    (here / "tester").rmdir()
    for name in ("ffhq256", "fashion", "lrvdvae-ffhq256"):  # files of no kind that holds weights
        (here / name).write_text("text")
        with refused(name, "no file of weights", ".th or .safetensors"):
            find_weights(name)
    assert hub.requests == site.requests == []


def test_a_slip_in_a_folders_name_asks_no_hub(hub: LoopbackHub, here: Path) -> None:
    run_folder(here / "runs" / "fine")
    with refused("runs/fin", "there is no folder", "check its name"):
        find_weights("runs/fin")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["ffhq256", "fashion", "https://127.0.0.1:1/a.th", "absent"])
def test_only_repositories_have_revisions(name: str) -> None:
    with refused(f"'{name}'", "has no revision 'v1'", "leave it out"):
        find_weights(name, WeightSettings(revision="v1"))


def make(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("name", "cause", "remedy", "prepare"),
    [
        ("absent.th", "does not exist", "check the path", lambda: None),
        ("absent/model.safetensors", "does not exist", "check the path", lambda: None),
        ("empty", "holds no model.safetensors", "a folder of weights or a training run", lambda: Path("empty").mkdir()),
        ("run", "has no checkpoint yet", "let it save one", lambda: Path("run/checkpoints").mkdir(parents=True)),
        ("half", "config.json is missing", "fetch the whole folder", lambda: make(Path("half/model.safetensors"))),
        ("other.txt", "no file of weights", ".th or .safetensors", lambda: make(Path("other.txt"))),
        ("lrvdvae-ffhq256", "is not set", "VDVAE_LR_REPOSITORY", lambda: None),
        ("ffhq-256", "did you mean 'ffhq256'?", "OWNER/NAME", lambda: None),
        ("no such weights", "there are no weights", "fashion, ffhq256", lambda: None),
        ("a/b/c", "there are no weights", "OWNER/NAME", lambda: None),
        ("tester/model\n", "there are no weights", "OWNER/NAME", lambda: None),
        ("".join(map(str, range(150))), "there are no weights", "OWNER/NAME", lambda: None),
        ("x\0y", "NUL character", "remove it", lambda: None),
    ],
    ids=range(13),
)
def test_a_name_that_leads_nowhere_says_so(name: str, cause: str, remedy: str, prepare: Callable[[], None]) -> None:
    prepare()
    with refused(repr(name)[1:20].removesuffix("'"), cause, remedy):
        find_weights(name)


def compact_file(preset: str, path: Path, prefix: str = "") -> Path:
    """A published file's names and shapes, with all its numbers in one place."""
    zero = torch.zeros(1)
    torch.save({prefix + name: zero.expand(shape) for name, shape in PUBLISHED_MODELS[preset]["shapes"].items()}, path)
    return path


@pytest.mark.parametrize("preset", ["ffhq256", "imagenet64", "cifar10"])
def test_a_renamed_published_file_is_resembled_but_not_taken_for_it(here: Path, preset: str) -> None:
    """Shapes do not tell data maps, so whoever knows what it is has to say so."""
    source = find_weights(str(compact_file(preset, here / "renamed.th", "module.")))
    assert source.published is None
    with refused("renamed.th", f"{preset}'s shapes", "--hps"):
        settings_of(source)
    config = PUBLISHED[preset if preset in PUBLISHED else f"{preset}-seed0"].config()
    assert settings_of(source, config) == config


def test_a_file_is_known_by_a_published_name(here: Path) -> None:
    for name, file_name in FILE_NAMES.items():
        (here / file_name).write_bytes(b"not read")
        source = find_weights(file_name)
        assert (source.published, settings_of(source)) == (PUBLISHED[name], PUBLISHED[name].config())
        with refused(file_name, "other settings (image_size", "use the preset"):
            settings_of(source, SMALL)


def test_a_file_of_nobodys_shapes_asks_for_settings(here: Path) -> None:
    write_published(random_model(0), random_model(0).state_dict(), here / "mine.th")
    with refused("mine.th", "comes without its model's settings", "--hps"):
        VDVAE.from_pretrained("mine.th")
