"""Paths as people write them, and what may not be looked at is neither absent nor damaged."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ordinary_permissions import without_permission
from refusals import refused
from saved_models import save_tiny

from vdvae_lr.cli.main import main
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import read_evaluation
from vdvae_lr.files.digests import DIGESTS_NAME, file_sha256
from vdvae_lr.files.paths import entries, exists, expanded, is_file, is_folder, path_of
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import MIRROR_VARIABLE, WeightSettings
from vdvae_lr.pictures.image_files import find_image_files
from vdvae_lr.report.reported import read_reported
from vdvae_lr.training.checkpoint import CheckpointFolder
from vdvae_lr.training.claimed_folder import claimed_folder
from vdvae_lr.training.settings import RunSettings, Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, which is not the working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as it lies on the disk, of two sound checkpoints."""
    folder = tmp_path / "run"
    weights = Path(save_tiny(tmp_path / "weights"))
    (weights / "model.safetensors").rename(weights / "ema.safetensors")
    shutil.copy(weights / "ema.safetensors", weights / "model.safetensors")
    shutil.copy(weights / "ema.safetensors", weights / "optimiser.safetensors")
    for iteration in (1, 2):
        checkpoint = Path(shutil.copytree(weights, folder / f"checkpoints/step-0000000{iteration}"))
        (checkpoint / "state.json").write_text(json.dumps({"iteration": iteration}))
        digests = [f"{file_sha256(path)}  {path.name}\n" for path in sorted(checkpoint.iterdir())]
        (checkpoint / DIGESTS_NAME).write_text("".join(digests))
    (folder / "images").mkdir()
    (folder / "settings.json").write_text(json.dumps(Settings().flat()))
    (folder / "log.jsonl").write_text('{"kind": "train", "iteration": 1}\n')
    return folder


@pytest.mark.parametrize("text", ["~", "~/x", "~/a b/ü", "~//x"])
def test_a_leading_tilde_is_the_home_folder(home: Path, text: str) -> None:
    assert Path(expanded(text)) == Path(str(home) + text[1:])


@pytest.mark.parametrize("text", ["", "x", "./~", "./~/x", "a/~/b", "../x", "/x/", "https://x/~y", "OWNER/NAME", "x~"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert expanded(text) == text
    assert expanded(expanded(text)) == expanded(text)


@pytest.mark.parametrize("text", ["~nobody-is-called-so", "~nobody-is-called-so/x"])
def test_home_folder_of_nobody_is_one_sentence(text: str) -> None:
    with refused("~nobody-is-called-so", "no home folder of user 'nobody-is-called-so'", "write the whole path"):
        expanded(text, "data_root")


def test_no_home_folder_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in the system's list of users."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with refused("~/x", "HOME is not set", "write the whole path"):
        expanded("~/x")


@pytest.mark.parametrize(
    "make", [lambda text: RunSettings(save_dir=text), lambda text: RunSettings(desc=text), path_of]
)
def test_a_nul_is_one_sentence(make: Callable[[str], object]) -> None:
    with refused(r"a\x00b", "NUL character", "remove it"):
        make("a\0b")


def test_python_calls_know_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = VDVAE.from_pretrained(save_tiny(home / "weights"))
    model.save_pretrained("~/saved")
    assert (home / "saved" / "model.safetensors").is_file()
    assert VDVAE.from_pretrained("~/saved").config == VDVAE.from_pretrained(Path("~/saved")).config == model.config
    (home / "x.png").touch()
    assert find_image_files(["~/x.png"]) == [home / "x.png"]
    monkeypatch.setenv(MIRROR_VARIABLE, "~/mirror")
    assert WeightSettings().mirror == str(home / "mirror")
    assert list(home.parent.joinpath("work").iterdir()) == []  # nothing is called ~ there


def test_kinds_of_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    names = ["", "file", "file/below", "link", "absent", "x" * 300, "x" * 300 + "/y", "a\0b"]
    kinds = {name: (exists(tmp_path / name), is_file(tmp_path / name), is_folder(tmp_path / name)) for name in names}
    assert kinds.pop("") == (True, False, True)
    assert kinds.pop("file") == (True, True, False)
    assert set(kinds.values()) == {(False, False, False)}
    assert sorted(entries(tmp_path)) == [tmp_path / "file", tmp_path / "link"]
    assert entries(tmp_path / "absent") == entries(tmp_path / "file") == []


def test_a_circle_of_links_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with refused(str(tmp_path / "a"), "cannot be read", "check the path"):
        is_file(tmp_path / "a")


NEWEST = "checkpoints/step-00000002"


@pytest.mark.parametrize(
    "locked",
    ["", "settings.json", "log.jsonl", "images", "checkpoints", NEWEST]
    + [f"{NEWEST}/{name}" for name in ("ema.safetensors", "config.json", DIGESTS_NAME)],
)
def test_a_run_that_may_not_be_read_is_not_absent_or_damaged(run: Path, locked: str) -> None:
    with without_permission(run / locked), refused(str(run), "Permission denied", "give this user the right") as caught:
        VDVAE.from_pretrained(run)
    assert "damaged" not in str(caught.value) and "no checkpoint" not in str(caught.value)


@pytest.mark.parametrize("locked", ["", "settings.json", "log.jsonl", "images", "checkpoints"])
def test_a_report_on_a_run_that_may_not_be_read(run: Path, locked: str) -> None:
    with without_permission(run / locked), refused(str(run), "Permission denied", "give this user the right"):
        read_reported([str(run)])


@pytest.mark.parametrize("locked", ["", "settings.json", "checkpoints"])
def test_training_does_not_go_on_in_a_run_that_may_not_be_read(run: Path, locked: str) -> None:
    settings = Settings(RunSettings(save_dir=str(run.parent), desc=run.name, seed=5))
    with without_permission(run / locked), refused(str(run), "Permission denied", ""), claimed_folder(settings):
        pass


@pytest.mark.parametrize("name", ["ema.safetensors", "state.json", DIGESTS_NAME, ""])
def test_training_does_not_go_back_behind_a_checkpoint_that_may_not_be_read(run: Path, name: str) -> None:
    checkpoints = CheckpointFolder(run, 2, 0)
    with without_permission(run / NEWEST / name), refused("", "Permission denied", "give this user") as caught:
        checkpoints.newest_sound()
    assert "start anew" not in str(caught.value)
    found = checkpoints.newest_sound()
    assert found is not None and found[1]["iteration"] == 2


@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors", "README.md"])
def test_weights_that_may_not_be_read(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(save_tiny(tmp_path / "weights"))
    (folder / "README.md").touch()
    with without_permission(folder / name):
        assert main(["export", str(folder), str(tmp_path / "out")]) == 2
    sentence = capsys.readouterr().err
    assert "Permission denied" in sentence and str(folder) in sentence and sentence.count("\n") == 1


def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.th")
    (tmp_path / "p.toml").write_text("iters = 3\n")
    for split in ("train", "valid"):
        np.save(tmp_path / f"imagenet32-{split}.npy", np.zeros((2, 32, 32, 3), np.uint8))
    (tmp_path / "evaluation.json").write_text("{}")
    data = DataSettings("imagenet32", str(tmp_path))
    reads: dict[str, Callable[[], object]] = {
        "w.th": lambda: VDVAE.from_pretrained(tmp_path / "w.th"),
        "p.toml": lambda: read_presets(str(tmp_path / "p.toml")),
        "imagenet32-train.npy": lambda: open_splits(data, 32, 3),
        "evaluation.json": lambda: read_evaluation(tmp_path),
    }
    for name, read in reads.items():
        with without_permission(tmp_path / name), refused(name, "Permission denied", ""):
            read()
        with without_permission(tmp_path), pytest.raises(InputError, match="Permission denied"):
            read()


def test_a_last_slash_makes_no_other_run(run: Path) -> None:
    """Shells add one where they complete a folder's name."""
    started = Settings(RunSettings(save_dir=str(run.parent), desc=run.name, pretrained="runs/first"))
    (run / "settings.json").write_text(json.dumps(started.flat() | {"pretrained": "runs/first/"}))
    with claimed_folder(started) as notice:
        assert notice == ""
    other = Settings(RunSettings(save_dir=str(run.parent), desc=run.name, pretrained="runs/second"))
    with pytest.raises(InputError, match="'runs/first/' → 'runs/second'"), claimed_folder(other):
        pass
