"""Weights go out and come back the same, and nothing is overwritten."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from short_runs import checkpoint_of, short_run
from small_config import SMALL
from training_runs import assert_same_bits

from vdvae_lr.cli.main import main
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.torch_files import read_tensors
from vdvae_lr.hub.vdvae.tensors import to_published
from vdvae_lr.hub.weight_folder import write_config, write_weights
from vdvae_lr.model.vdvae.vae import VeryDeepVAE as PlainVDVAE


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    write_config(folder, SMALL, "folder")
    write_weights(folder / "model.safetensors", PlainVDVAE(SMALL).state_dict())
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all tests share, and none changes."""
    return short_run(tmp_path_factory.mktemp("trained"))


def assert_same_weights(first: VDVAE, second: VDVAE) -> None:
    for (name, mine), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_folder_comes_back_bit_for_bit(weights: Path, tmp_path: Path) -> None:
    assert main(["export", str(weights), str(tmp_path / "again")]) == 0
    first, second = VDVAE.from_pretrained(weights), VDVAE.from_pretrained(tmp_path / "again")
    assert first.config == second.config
    assert second.dataset == "folder"
    assert_same_weights(first, second)


def test_published_file_comes_back_bit_for_bit(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "weights.th"
    assert main(["export", str(weights), str(target), "--format", "published"]) == 0
    assert_same_weights(VDVAE.from_pretrained(weights), VDVAE.from_pretrained(target, config=SMALL))


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


@pytest.mark.parametrize(("words", "name"), [([], "ema"), (["--no_ema"], "model")])
@pytest.mark.parametrize("kind", ["safetensors", "published"])
def test_a_runs_weights_before_and_after_averaging(
    trained: Path, tmp_path: Path, kind: str, words: list[str], name: str
) -> None:
    target = tmp_path / ("weights.th" if kind == "published" else "folder")
    assert main(["export", str(trained), str(target), "--format", kind, *words]) == 0
    kept: dict[str, Any] = load_file(checkpoint_of(trained) / f"{name}.safetensors")
    again = VDVAE.from_pretrained(target, config=VDVAE.from_pretrained(trained).config)
    assert_same_bits(kept, dict(again.state_dict()))
    other: dict[str, Any] = load_file(checkpoint_of(trained) / f"{'model' if name == 'ema' else 'ema'}.safetensors")
    assert any(not torch.equal(kept[key], other[key]) for key in kept)  # or the choice would make no difference


def test_an_exported_run_is_a_folder_of_weights_card_and_picture(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "made" / "folder"
    assert main(["export", str(trained), str(target)]) == 0
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    written = {"README.md", "SHA256SUMS", "config.json", "model.safetensors"}
    assert names == written | {"figures/reconstructions_and_samples.png"}
    assert [path.name for path in target.parent.iterdir()] == ["folder"]
    assert ".part" not in (target / "README.md").read_text()  # the name it was written under


def test_a_published_file_becomes_ours_and_the_same_file_again(weights: Path, tmp_path: Path) -> None:
    preset = tmp_path / "small.toml"
    preset.write_text("".join(f"{name} = {value!r}\n" for name, value in vars(SMALL).items()))
    original = to_published(PlainVDVAE(SMALL), VDVAE.from_pretrained(weights).state_dict())
    torch.save({f"module.{name}": tensor for name, tensor in original.items()}, tmp_path / "theirs.th")
    steps = [
        ["export", str(tmp_path / "theirs.th"), str(tmp_path / "ours"), "--hps", str(preset)],
        ["export", str(tmp_path / "ours"), str(tmp_path / "again.th"), "--format", "published"],
    ]
    assert [main(step) for step in steps] == [0, 0]
    again = read_tensors(tmp_path / "again.th")
    assert list(again) == list(original)
    assert_same_bits(dict(original), again)


def test_a_published_file_without_its_preset_is_one_sentence(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vdvae_lr.hub.vdvae.published.PUBLISHED", {})  # to compare it with those takes seconds
    main(["export", str(weights), str(tmp_path / "weights.th"), "--format", "published"])
    capsys.readouterr()
    assert main(["export", str(tmp_path / "weights.th"), str(tmp_path / "folder")]) == 2
    message = capsys.readouterr().err
    assert "comes without its model's settings" in message and "--hps" in message and message.count("\n") == 1
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("kind", ["safetensors", "published"])
def test_a_place_that_cannot_be_written_is_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert main(["export", str(weights), str(tmp_path / "taken" / "new.th"), "--format", kind]) == 2
    message = capsys.readouterr().err
    assert "cannot be written" in message and message.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "mine"


def test_what_a_killed_export_left_is_no_part_of_the_next(trained: Path, tmp_path: Path) -> None:
    half = tmp_path / ".folder.part"
    (half / ".saving-abc").mkdir(parents=True)
    (half / "old.txt").write_text("half")
    assert main(["export", str(trained), str(tmp_path / "folder")]) == 0
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {
        *("README.md", "SHA256SUMS", "config.json", "model.safetensors", "figures")
    }
    assert not half.exists()
