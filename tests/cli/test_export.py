"""Weights go out and come back the same, and nothing is overwritten."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL

from vdvae_lr.cli.main import main
from vdvae_lr.hub.repository import load_pretrained
from vdvae_lr.hub.weight_folder import write_config, write_weights
from vdvae_lr.model.vae import VDVAE


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    write_config(folder, SMALL, "folder")
    write_weights(folder / "model.safetensors", VDVAE(SMALL).state_dict())
    return folder


def assert_same_weights(first: VDVAE, second: VDVAE) -> None:
    for (name, mine), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_folder_comes_back_bit_for_bit(weights: Path, tmp_path: Path) -> None:
    assert main(["export", str(weights), str(tmp_path / "again")]) == 0
    first, second = load_pretrained(str(weights)), load_pretrained(str(tmp_path / "again"))
    assert first.model.config == second.model.config
    assert second.dataset == "folder"
    assert_same_weights(first.model, second.model)


def test_published_file_comes_back_bit_for_bit(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "weights.th"
    assert main(["export", str(weights), str(target), "--format", "published"]) == 0
    assert_same_weights(load_pretrained(str(weights)).model, load_pretrained(str(target), SMALL).model)


def test_what_exists_is_not_overwritten(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (weights / "model.safetensors").read_bytes()
    assert main(["export", str(weights), str(weights)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (weights / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "config", "other"])
def test_damaged_weights_are_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    if damage == "cut":
        content = (weights / "model.safetensors").read_bytes()
        (weights / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif damage == "config":
        (weights / "config.json").write_text('{"model": {"widht": 3}, "dataset": ""}')
    else:
        write_weights(weights / "model.safetensors", {"encoder.image_input.weight": torch.zeros(1)})
    assert main(["export", str(weights), str(tmp_path / "target")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert not (tmp_path / "target").exists()
