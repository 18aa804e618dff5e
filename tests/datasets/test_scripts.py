"""The scripts data/NAME/prepare.py, run as a person runs them."""

import gzip
import hashlib
import io
import os
import pickle
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vdvae_lr.datasets.catalogue import DATASETS, open_ffhq1024

DATA = Path(__file__).parents[2] / "data"
SCRIPTS = sorted(DATA.glob("*/prepare.py"))


def run(name: str, *arguments: object, monkeypatch) -> None:
    """The script's main, as `python data/NAME/prepare.py …`, in this process."""
    monkeypatch.setattr(sys, "argv", [f"data/{name}/prepare.py", *map(str, arguments)])
    runpy.run_path(str(DATA / name / "prepare.py"), run_name="__main__")


def test_every_data_set_but_a_users_own_has_a_script_and_a_readme():
    assert {path.parent.name for path in SCRIPTS} == set(DATASETS) - {"folder", "hub"}
    assert all((path.parent / "README.md").is_file() for path in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_help_names_the_options(script: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run(script.parent.name, "--help", monkeypatch=monkeypatch)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "--data_root" in shown
    assert "--from" in shown


def test_a_script_runs_from_anywhere_without_an_installed_package(tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, DATA / "cifar10" / "prepare.py", "--from", "gone.tar.gz", "--data_root", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: gone.tar.gz does not exist")


def test_cifar10_with_a_foreign_archive_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch, capsys):
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        content = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8)})
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    with pytest.raises(SystemExit):
        run("cifar10", "--from", archive, "--data_root", tmp_path / "root", monkeypatch=monkeypatch)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in capsys.readouterr().err
    assert list((tmp_path / "root").iterdir()) == []


def test_ffhq1024_sorts_by_number_and_can_be_run_again(tmp_path: Path, monkeypatch, capsys):
    given = tmp_path / "images1024x1024"
    for number in (0, 64_999, 65_000, 69_999):
        path = given / f"{number // 1000 * 1000:05d}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"stands for an image")
    for _ in range(2):
        run("ffhq1024", "--from", given, "--data_root", tmp_path, monkeypatch=monkeypatch)
    splits = open_ffhq1024(tmp_path, "stop")
    assert [Path(splits.train.describe(i)).name for i in range(2)] == ["00000.png", "64999.png"]
    assert [Path(splits.valid.describe(i)).name for i in range(2)] == ["65000.png", "69999.png"]
    assert "2 training and 2 validation images" in capsys.readouterr().out


def test_ffhq1024_copies_where_links_are_impossible(tmp_path: Path, monkeypatch):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "00001.png").write_bytes(b"image")

    def refuse(*arguments: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    run("ffhq1024", "--from", tmp_path / "given", "--data_root", tmp_path, monkeypatch=monkeypatch)
    assert [path.name for path in (tmp_path / "ffhq1024" / "train").iterdir()] == ["00001.png"]


def test_ffhq256_takes_a_copy_and_records_its_digest(tmp_path: Path, monkeypatch, capsys):
    np.save(tmp_path / "copy.npy", np.zeros((2, 256, 256, 3), np.uint8))
    run("ffhq256", "--from", tmp_path / "copy.npy", "--data_root", tmp_path / "root", monkeypatch=monkeypatch)
    assert "2 images" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"ffhq-256.npy", "ffhq-256.npy.sha256"}


def test_the_small_fashion_files_can_be_made_again(tmp_path: Path, monkeypatch):
    official = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
    if not Path(official).is_dir():
        pytest.skip("needs the official files, in the folder FASHION_MNIST names or from dataset-fashion-mnist")
    run("fashion", "--from", official, "--data_root", tmp_path / "full", monkeypatch=monkeypatch)
    (tmp_path / "small").mkdir()
    run("fashion_small", "--from", tmp_path / "full", "--data_root", tmp_path / "small", monkeypatch=monkeypatch)
    for name in (f"{part}-images-idx3-ubyte.gz" for part in ("train", "valid", "t10k")):
        made, committed = (
            gzip.decompress((root / name).read_bytes()) for root in (tmp_path / "small", DATA / "fashion_small")
        )
        assert made == committed  # packed bytes may differ between versions of zlib
