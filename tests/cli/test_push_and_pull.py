"""`push` and `pull` against a Hub on this machine: what arrives, and one sentence for all that can go wrong."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard
from loopback_client import LARGE_UPLOAD_WARNING
from loopback_faults import Fault
from loopback_hub import LoopbackHub
from safetensors.torch import load_file
from short_runs import LAST, checkpoint_of, short_run
from small_config import SMALL
from small_published import NAME as PUBLISHED_NAME
from small_published import publish, random_model
from training_runs import assert_same_bits

from vdvae_lr import VDVAE
from vdvae_lr.cli.main import main

pytestmark = [
    pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]
REPOSITORY = "tester/model"
PICTURE = "figures/reconstructions_and_samples.png"
PUSHED = {"README.md", "SHA256SUMS", "config.json", "model.safetensors", PICTURE}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub that this process is logged in to."""
    with LoopbackHub() as hub, hub.client(tmp_path / "home", token=hub.token):
        yield hub
    gc.collect()  # huggingface_hub leaves the folder of a failed upload to the garbage collector, which warns


def average(run: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = load_file(checkpoint_of(run) / "ema.safetensors")
    return tensors


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line, without traceback, that a command prints when it refuses its input."""
    capsys.readouterr()  # progress bars of what came before
    assert main(list(words)) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_push_makes_the_repository_and_fills_it_in_one_commit(
    hub: LoopbackHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), REPOSITORY]) == 0
    commits = [request.path for request in hub.requests if request.path.endswith("/commit/main")]
    assert commits == [f"/api/models/{REPOSITORY}/commit/main"]
    assert hub.repositories[REPOSITORY].visibility == "public"
    assert hub.files(REPOSITORY).keys() == PUSHED
    assert hub.files(REPOSITORY)[PICTURE] == (run / "images" / f"step-{LAST:08d}.png").read_bytes()
    assert_same_bits(average(run), dict(VDVAE.from_pretrained(REPOSITORY).state_dict()))
    printed = capsys.readouterr().out
    assert f"pushed {run} to {hub.endpoint}/{REPOSITORY}/commit/" in printed
    assert f'load it with vdvae_lr.VDVAE.from_pretrained("{REPOSITORY}")' in printed


def test_push_again_replaces_the_weights(hub: LoopbackHub, run: Path) -> None:
    for words in ([str(checkpoint_of(run, 3))], [str(run), "--no_ema"]):
        assert main(["push", words[0], REPOSITORY, *words[1:]]) == 0
    raw: dict[str, Any] = load_file(checkpoint_of(run) / "model.safetensors")
    assert_same_bits(raw, dict(VDVAE.from_pretrained(REPOSITORY).state_dict()))


def test_push_states_privacy_licence_and_message(
    hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[dict[str, Any]] = []
    upload = HfApi.upload_folder
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **options: said.append(options) or upload(self, **options))
    words = ["--private", "--license", "cc-by-nc-sa-4.0", "--message", "the first"]
    assert main(["push", str(run), REPOSITORY, *words]) == 0
    assert hub.repositories[REPOSITORY].visibility == "private"
    assert [options["commit_message"] for options in said] == ["the first"]
    card = ModelCard(hub.files(REPOSITORY)["README.md"].decode())
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert "Weights: cc-by-nc-sa-4.0." in card.text


def test_push_to_a_branch_leaves_the_others(hub: LoopbackHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.put(REPOSITORY, {}, revision="trial")
    assert main(["push", str(run), REPOSITORY, "--branch", "trial"]) == 0
    assert hub.files(REPOSITORY, "trial").keys() == PUSHED
    assert hub.files(REPOSITORY) == {}
    assert f'from_pretrained("{REPOSITORY}", revision="trial")' in capsys.readouterr().out
    message = answer(capsys, "push", str(run), REPOSITORY, "--branch", "absent")
    assert f"repository {REPOSITORY} has no revision 'absent'" in message


def test_push_can_open_a_pull_request(
    hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[dict[str, Any]] = []

    def upload(self: HfApi, **options: Any) -> str:
        said.append(options)
        return "https://hub/pull/1"

    monkeypatch.setattr(HfApi, "upload_folder", upload)  # the Hub of the tests knows no pull requests
    assert main(["push", str(run), REPOSITORY, "--create_pr"]) == 0
    assert main(["push", str(run), REPOSITORY]) == 0
    assert [bool(options["create_pr"]) for options in said] == [True, False]
    printed = capsys.readouterr().out
    assert "to https://hub/pull/1\nload it, once it is merged, with" in printed
    assert "to https://hub/pull/1\nload it with" in printed


def test_push_without_a_login_says_how_to_log_in(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LoopbackHub() as hub, hub.client(tmp_path / "home"):
        message = answer(capsys, "push", str(run), REPOSITORY)
        assert REPOSITORY in message and "hf auth login" in message
        assert hub.repositories == {}


@pytest.mark.parametrize("exists", [False, True])
def test_push_into_somebody_elses_account_is_refused(
    hub: LoopbackHub, run: Path, capsys: pytest.CaptureFixture[str], exists: bool
) -> None:
    if exists:
        hub.put("stranger/model", {"config.json": b"theirs"})
    message = answer(capsys, "push", str(run), "stranger/model")
    assert "stranger/model" in message and "hf auth login" in message
    assert not exists or hub.files("stranger/model") == {"config.json": b"theirs"}


def test_push_while_the_hub_is_down_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LoopbackHub() as hub:
        pass
    with hub.client(tmp_path / "home", token=hub.token):
        message = answer(capsys, "push", str(run), REPOSITORY)
    assert f"repository {REPOSITORY} cannot be fetched" not in message  # nothing is being fetched
    assert REPOSITORY in message and "check the connection" in message


@pytest.mark.parametrize("step", ["preupload", "lfs/objects/batch", "commit/main"])
def test_push_that_breaks_off_leaves_the_repository_as_it_was(
    hub: LoopbackHub, run: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    hub.put(REPOSITORY, {"README.md": b"---\nlicense: mit\n---\n"})
    before = hub.files(REPOSITORY)
    hub.faults.append(Fault("status", step, method="POST", status=500))
    message = answer(capsys, "push", str(run), REPOSITORY)
    assert hub.faults[0].struck
    assert f"repository {REPOSITORY} answers 500 (the server failed)" in message
    assert hub.files(REPOSITORY) == before


def test_push_of_weights_that_are_not_there_asks_the_hub_nothing(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert "no weights 'fashon' (did you mean 'fashion'?)" in answer(capsys, "push", "fashon", REPOSITORY)
    assert "has no checkpoint yet" in answer(capsys, "push", str(tmp_path / "run"), REPOSITORY)
    assert hub.requests == []


def test_a_name_that_no_repository_can_have_is_refused(
    hub: LoopbackHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'a/b/c' cannot be a repository's name" in answer(capsys, "push", str(run), "a/b/c")
    assert hub.repositories == {}


def test_what_was_pushed_is_pulled_as_it_lies_there(
    hub: LoopbackHub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(run), REPOSITORY])
    hub.put(REPOSITORY, {"evil.py": b"import os", "figures/../other.txt": b"out"})
    capsys.readouterr()
    assert main(["pull", REPOSITORY, str(tmp_path / "pulled")]) == 0
    pulled = contents(tmp_path / "pulled")
    assert pulled == {name: content for name, content in hub.files(REPOSITORY).items() if name in PUSHED}
    assert not any(path.is_symlink() for path in (tmp_path / "pulled").rglob("*"))
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'pulled'}\n")
    assert_same_bits(average(run), dict(VDVAE.from_pretrained(tmp_path / "pulled").state_dict()))


def test_a_name_of_ours_is_pulled_from_the_repository_it_stands_for(
    hub: LoopbackHub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(run), "tester/lrvdvae-tiny"])
    capsys.readouterr()
    words = ["pull", "lrvdvae-tiny", str(tmp_path / "pulled")]
    assert main([*words, "--lr_repository", "tester/lrvdvae-{name}"]) == 0
    assert contents(tmp_path / "pulled") == hub.files("tester/lrvdvae-tiny")
    assert "--lr_repository" in answer(capsys, *words[:2])


def test_what_a_killed_pull_left_is_not_in_the_way_of_the_next(hub: LoopbackHub, tmp_path: Path) -> None:
    VDVAE(SMALL).save_pretrained(tmp_path / "made")
    hub.put(REPOSITORY, contents(tmp_path / "made"))
    (tmp_path / ".pulled.part").mkdir()
    (tmp_path / ".pulled.part" / "old.txt").write_text("half")
    assert main(["pull", REPOSITORY, str(tmp_path / "pulled")]) == 0
    assert contents(tmp_path / "pulled") == contents(tmp_path / "made")
    assert not (tmp_path / ".pulled.part").exists()


def test_a_repository_without_card_is_pulled_without(hub: LoopbackHub, tmp_path: Path) -> None:
    VDVAE(SMALL).save_pretrained(tmp_path / "made")
    files = {name: content for name, content in contents(tmp_path / "made").items() if name != "README.md"}
    hub.put(REPOSITORY, files)
    assert main(["pull", REPOSITORY, str(tmp_path / "pulled")]) == 0
    assert contents(tmp_path / "pulled") == files


def test_what_was_pulled_is_there_without_network(
    hub: LoopbackHub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(run), REPOSITORY])
    capsys.readouterr()
    assert main(["pull", REPOSITORY]) == 0
    path, size = re.findall(r"^(\S+)  ([\d,]+) bytes\n$", capsys.readouterr().out)[0]
    assert Path(path).stat().st_size == int(size.replace(",", "")) == len(hub.files(REPOSITORY)["model.safetensors"])
    seen = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_same_bits(average(run), dict(VDVAE.from_pretrained(REPOSITORY).state_dict()))
    assert len(hub.requests) == seen


def test_a_folder_that_exists_is_left_alone_and_nothing_is_fetched(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    assert "exists already" in answer(capsys, "pull", REPOSITORY, str(tmp_path / "folder"))
    assert contents(tmp_path / "folder") == {}
    assert hub.requests == []


def test_pull_of_what_is_not_there_leaves_no_folder(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "below" / "folder"
    assert "there is no repository tester/absent" in answer(capsys, "pull", "tester/absent", str(target))
    hub.put(REPOSITORY, {"config.json": b"{}"})
    assert "has no model.safetensors" in answer(capsys, "pull", REPOSITORY, str(target))
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_a_published_model_is_pulled_from_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = tmp_path / "mirror"
    published = publish(monkeypatch, mirror)
    (mirror / published.file_name("opt")).write_bytes(b"state")
    words = ["pull", PUBLISHED_NAME, "--weights_mirror", str(mirror)]
    assert main([*words, str(tmp_path / "pulled"), "--everything"]) == 0
    printed = capsys.readouterr().out.splitlines()
    kinds = ("model-ema", "model", "opt")
    assert [line.split()[0] for line in printed[:3]] == [str(mirror / published.file_name(kind)) for kind in kinds]
    pulled = VDVAE.from_pretrained(tmp_path / "pulled")
    assert_same_bits(dict(random_model(0).state_dict()), dict(pulled.state_dict()))
    card = (tmp_path / "pulled" / "README.md").read_text()
    assert f"# {PUBLISHED_NAME}\n" in card and "OpenAI's published" in card
    (mirror / published.file_name("opt")).unlink()
    assert published.file_name("opt") in answer(capsys, *words, "--everything")


@pytest.mark.parametrize("name", ["fashion", PUBLISHED_NAME])
def test_everything_is_refused_where_there_is_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    publish(monkeypatch, tmp_path / "mirror", complete=False)
    words = ["pull", name, str(tmp_path / "pulled"), "--everything", "--weights_mirror", str(tmp_path / "mirror")]
    assert "leave --everything out" in answer(capsys, *words)
    assert not (tmp_path / "pulled").exists()


def test_pull_never_takes_what_is_here_for_what_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10-seed0").mkdir()
    assert "cifar10-seed0 is on this machine already" in answer(capsys, "pull", "cifar10-seed0")
