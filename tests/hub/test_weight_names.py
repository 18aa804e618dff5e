"""Names of weights as people paste them: each leads to the words that work."""

from pathlib import Path

import pytest
from refusals import refused

from vdvae_lr.errors import InputError
from vdvae_lr.files.hub_client import check_hub_name
from vdvae_lr.hub.sources import find_weights
from vdvae_lr.hub.vdvae.published import published_file


@pytest.mark.parametrize(
    "site", ["https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "https://hf.co/"]
)
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("", "write some-body/my.model."),
        ("/", "write some-body/my.model."),
        ("?library=x", "write some-body/my.model."),
        ("/tree/main", "write some-body/my.model."),
        ("/tree/v1.0", "write some-body/my.model and --revision v1.0 (in Python revision='v1.0')."),
        ("/blob/main/model.safetensors", "write some-body/my.model."),
        ("/blob/0a1b/sub/model.safetensors?download=true", "--revision 0a1b"),
        ("/commit/0a1b2c", "--revision 0a1b2c"),
        ("/discussions/3", "write some-body/my.model."),
    ],
)
def test_a_page_of_the_hub_is_no_address_of_weights(site: str, page: str, words: str) -> None:
    with refused("some-body/my.model", "is the address of a repository on the Hub", words):
        find_weights(f"{site}some-body/my.model{page}")


@pytest.mark.parametrize(
    "name", ["hf://a/b", "hf://models/a/b", "https://www.huggingface.co/a/b", "https://huggingface.co/api/models/a/b"]
)
def test_other_addresses_of_a_repository(name: str) -> None:
    with refused(name, "is the address of a repository", "write a/b."):
        find_weights(name)


@pytest.mark.parametrize("revision", ["v1", "main", "refs/pr/3", "0a1b2c"])
@pytest.mark.parametrize("name", ["somebody/model", "hf://somebody/model"])
def test_a_revision_in_the_name(name: str, revision: str) -> None:
    words = (
        "write somebody/model." if revision == "main" else f"--revision {revision} (in Python revision='{revision}')."
    )
    with refused(f"{name}@{revision}", "has a revision in the name", words):
        find_weights(f"{name}@{revision}")


def test_a_mirror_is_named_as_a_repository_too() -> None:
    with refused("https://huggingface.co/a/b", "is the address of a repository", "write a/b."):
        published_file("ffhq256", "model-ema", "https://huggingface.co/a/b")


@pytest.mark.parametrize(
    "name",
    [
        *("somebody/model", "fashion", "ffhq256", "./a/b", "a/b/c", "runs/first", "a@b", "a/b/blob/c", ""),
        *("https://example.org/a/b", "https://huggingface.co/a"),
        "https://huggingface.co/a/b/resolve/main/model.safetensors",
    ],
)
def test_other_names_are_left_alone(name: str) -> None:
    check_hub_name(name)


def test_a_path_with_an_at_sign_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    with pytest.raises(InputError, match="there are no weights 'runs/first@home'"):
        find_weights("runs/first@home")


def test_folders_and_files_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run/checkpoints/step-00000003").mkdir(parents=True)
    for name in ("mine.toml", "config.json", "notes.txt"):
        Path(name).touch()
    Path("folder.th").mkdir()
    for name, cause, remedy in [
        ("run/checkpoints", "holds a run's checkpoints", "give the run, run,"),
        ("run/checkpoints/", "holds a run's checkpoints", "give the run, run,"),
        ("mine.toml", "is a preset, not weights", "--hps"),
        ("config.json", "holds settings, not weights", "give its folder"),
        ("notes.txt", "is no file of weights", ".th or .safetensors"),
        ("folder.th", "holds no model.safetensors", "a folder of weights or a training run"),
        ("Fashion", "did you mean 'fashion'?", "give a file"),
        ("FFHQ256", "did you mean 'ffhq256'?", "give a file"),
    ]:
        with refused(name.rstrip("/"), cause, remedy):
            find_weights(name)
