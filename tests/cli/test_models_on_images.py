"""What `compare` and `noise` share: data that a run knows, a place for the results, float32 arithmetic."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_models import save_tiny
from short_runs import short_run
from training_runs import write_images

import vdvae_lr
from vdvae_lr.cli import compare, noise
from vdvae_lr.cli.main import main
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.hub.weight_folder import write_config

COMMANDS = {
    "compare": (compare, "measure_sections", "comparison.json"),
    "noise": (noise, "measure_noise", "noise_response.json"),
}
QUICK = ("--examples", "2", "--images", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("short"), iters=1)


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Any]], None]:
    """Replaces a command's measurement."""
    return lambda command, stand_in: monkeypatch.setattr(*COMMANDS[command][:2], stand_in)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_brings_its_data(a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """The images are not at data/folder. The first model comes without a run and knows only the name of its data."""
    weights = tmp_path / "weights"
    config = vdvae_lr.VDVAE.from_pretrained(a_run).config
    save_tiny(weights, **vars(config))
    write_config(weights, config, "folder")
    monkeypatch.chdir(tmp_path)
    for models in ([f"one={a_run}"], [f"before={weights}", f"after={a_run}"]):
        assert main([command, *models, "--out", "out", *QUICK]) == 0
        found = json.loads((tmp_path / "out" / COMMANDS[command][2]).read_text())["models"]
        assert [one["dataset"] for one in found.values()] == ["folder"] * len(models)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_found_is_printed_and_kept(
    a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    images = write_images(tmp_path / "images" / "train", 5).parent
    write_images(images / "val", 3)
    (images / "train" / "film.gif").write_text("moves")
    words = [f"one={a_run}", "--dataset", "folder", "--data_root", str(images), "--out", str(tmp_path / "out"), *QUICK]
    assert main([command, *words]) == 0
    printed = capsys.readouterr().out
    assert "Images: 8 found, split by their folders: 5 training, 3 validation and test.\n" in printed
    assert "Left out: 1 × .gif.\n" in printed
    inventory = json.loads((tmp_path / "out" / COMMANDS[command][2]).read_text())["models"]["one"]["inventory"]
    assert [inventory[part]["images"] for part in ("train", "valid", "test")] == [5, 3, 3]
    assert inventory["left_out"] == {".gif": 1}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unreadable_image_is_named_and_the_remedy_works(
    a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    images = write_images(tmp_path / "images" / "train", 5).parent
    (write_images(images / "val", 3) / "000.png").write_text("no image")
    words = [f"one={a_run}", "--dataset", "folder", "--data_root", str(images), "--out", str(tmp_path / "out"), *QUICK]
    assert main([command, *words]) == EXIT_INPUT_ERROR
    assert "000.png cannot be read as an image" in (error := capsys.readouterr().err)
    assert "--bad_images skip" in error
    assert main([command, *words, "--bad_images", "skip"]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    instead: Callable[[str, Callable[..., Any]], None],
    command: str,
) -> None:
    (tmp_path / "file").write_text("mine")
    instead(command, lambda *arguments, **options: pytest.fail("measured"))
    words = [f"one={save_tiny(tmp_path / 'one')}", "--out", str(tmp_path / "file"), *QUICK]
    assert main([command, *words]) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert f"folder {tmp_path / 'file'} cannot be written" in error
    assert "--out" in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", COMMANDS)
def test_convolutions_are_those_of_evaluate(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Callable[[str, Callable[..., Any]], None],
    command: str,
) -> None:
    """They measure without TF32. Afterwards the setting is as before, also after an error."""
    seen = []

    def stand_in(*arguments: object, **options: object) -> None:
        seen.append(torch.backends.cudnn.allow_tf32)
        raise InputError("enough")

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    instead(command, stand_in)
    assert main([command, f"one={save_tiny(tmp_path / 'one')}", "--out", str(tmp_path / "out"), *QUICK]) == 2
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32
