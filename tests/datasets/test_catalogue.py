"""Data sets by name: the right shapes, and one clear sentence for every wrong choice."""

import runpy
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vdvae_lr.datasets.catalogue import DATASETS, DataSettings, default_data_root, open_splits
from vdvae_lr.errors import InputError


def test_the_default_opens_the_bundled_images():
    splits = open_splits(DataSettings(), image_size=32, image_channels=1)
    assert splits.train.read([0, 5]).shape == (2, 32, 32, 1)


def test_a_folder_is_read_in_the_models_size_and_channels(tmp_path: Path):
    for number in range(3):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{number}.png")
    settings = DataSettings(dataset="folder", data_root=str(tmp_path))
    assert open_splits(settings, 16, 1).train.read([0]).shape == (1, 16, 16, 1)
    assert open_splits(settings, 24, 3).test.read([0]).shape == (1, 24, 24, 3)


def test_the_skip_policy_reaches_the_folder(tmp_path: Path):
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    for name in ("train", "valid"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_text("no image")
        Image.new("RGB", (8, 8)).save(tmp_path / name / "b.png")
    train = open_splits(DataSettings("folder", str(tmp_path), bad_images="skip"), 8, 3).train
    assert train.read([0]).shape == (1, 8, 8, 3)
    assert train.replaced_images == 1


@pytest.mark.parametrize(
    ("settings", "size", "channels", "reason"),
    [
        (DataSettings("cifar10"), 64, 3, "image_size is 64, but data set 'cifar10' has 32"),
        (DataSettings("ffhq256"), 256, 1, "image_channels is 1, but data set 'ffhq256' has 3"),
        (DataSettings("fashion_small"), 32, 3, "image_channels is 3, but data set 'fashion_small' has 1"),
        (DataSettings("fashion_small"), 30, 2, "image_channels is 2: choose 1 for grey or 3 for colour"),
        (DataSettings("fashion_small"), 29, 1, "image_size 29 does not fit"),
        (DataSettings("folder", "x"), 0, 3, "image_size is 0, but it must be at least 1"),
        (DataSettings("folder"), 32, 3, "name it with --data_root"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_sentence(settings: DataSettings, size: int, channels: int, reason: str):
    with pytest.raises(InputError, match=reason) as caught:
        open_splits(settings, size, channels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dataset": "cifar-10"}, r"no data set 'cifar-10' \(did you mean 'cifar10'\?\)"),
        ({"bad_images": "ignore"}, "bad_images is 'ignore'"),
        ({"num_workers": -1}, "num_workers is -1"),
    ],
)
def test_what_no_data_set_can_be_is_refused_before_any_file_is_looked_for(changes: dict[str, Any], reason: str):
    with pytest.raises(InputError, match=reason):
        DataSettings(**changes)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"folder", "hub", "fashion_small"}))
def test_missing_data_name_the_place_and_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    known = DATASETS[name]
    with pytest.raises(InputError, match=rf"{tmp_path}.*python data/{name}/prepare\.py") as caught:
        open_splits(DataSettings(name, str(tmp_path)), known.image_size or 32, known.image_channels or 3)
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--help"])
    with suppress(SystemExit):
        runpy.run_path(str(Path(__file__).parents[2] / "data" / name / "prepare.py"), run_name="__main__")
    is_required = "[--from" not in capsys.readouterr().out  # the usage puts brackets around what may be left out
    assert ("--from PATH" in str(caught.value)) == is_required


def test_an_empty_root_is_where_the_script_puts_the_data():
    assert default_data_root("cifar10") == Path(__file__).resolve().parents[2] / "data" / "cifar10"
