"""MNIST, Omniglot and CelebA: small files in their true formats, converted, opened and refused."""

import gzip
import hashlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loopback_client import client_at
from loopback_files import LoopbackFiles
from refusals import refused

from vdvae_lr.cli.shared.config import settings_of_presets
from vdvae_lr.datasets.array_files import IDX_TEST, IDX_TRAIN, write_idx
from vdvae_lr.datasets.catalogue import DATASETS, DataSettings, open_idx, open_splits, terms_of
from vdvae_lr.datasets.preparation import ensure_file

NAMES = ("mnist", "omniglot", "celeba")
DATA = Path(__file__).parents[2] / "data"
CONTENT = gzip.compress(write_idx(np.arange(6 * 784, dtype=np.uint8).reshape(6, 28, 28, 1)))
MD5 = hashlib.md5(CONTENT).hexdigest()


def prepare(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `python data/NAME/prepare.py …` in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", [f"data/{name}/prepare.py", *map(str, arguments)])
    try:
        runpy.run_path(str(DATA / name / "prepare.py"), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackFiles]:
    files = {"/file": CONTENT, f"/{IDX_TRAIN}.gz": CONTENT}
    with LoopbackFiles(files) as server, client_at(server.address, tmp_path / "home"):
        yield server


def test_mnist_is_split_and_padded_as_fashion_mnist(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1), dtype=np.uint8)
    for name, part in ((IDX_TRAIN, images[:7]), (IDX_TEST, images[7:])):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(write_idx(part)))
    splits = open_idx(tmp_path, 28, held_out=3)
    for source, expected in zip((splits.train, splits.valid, splits.test), np.split(images, [4, 7]), strict=True):
        np.testing.assert_array_equal(source.read(range(len(source))), expected)
    with refused(IDX_TRAIN, "holds 7 images, but 5000", "python data/mnist/prepare.py"):
        open_splits(DataSettings("mnist", str(tmp_path)), 28, 1)


def test_a_published_md5_is_checked_and_the_sha256_recorded(server: LoopbackFiles, tmp_path: Path) -> None:
    target = tmp_path / "data" / "file.gz"
    for _ in range(2):
        assert ensure_file(target, f"{server.address}/file", md5=MD5).read_bytes() == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest() in (target.parent / "file.gz.sha256").read_text()
    target.write_bytes(CONTENT[:-1])
    with refused("file.gz has the MD5", MD5, f"delete {target}"):
        ensure_file(target, f"{server.address}/file", md5=MD5)


def test_a_file_of_another_md5_is_not_kept(server: LoopbackFiles, tmp_path: Path) -> None:
    target, given = tmp_path / "data" / "file.gz", tmp_path / "given.gz"
    given.write_bytes(CONTENT)
    for source in (None, given):
        origin = str(source or f"{server.address}/file")
        with refused(f"{origin} is not what it should be", f"it has the MD5 {MD5}", "--from"):
            ensure_file(target, f"{server.address}/file", given=source, md5="0" * 32)
    assert {path.name for path in target.parent.iterdir()} <= {".file.gz.lock"}
    assert given.read_bytes() == CONTENT


def test_the_md5_of_a_page_is_not_mnists(
    server: LoopbackFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--data_root", tmp_path / "root")
    assert prepare("mnist", "--url", server.address, *root, monkeypatch=monkeypatch) == 2
    assert "f68b3c2dcbeaaa9fbdd348bbdeb94873" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert prepare("mnist", "--from", tmp_path, *root, monkeypatch=monkeypatch) == 2
    assert f"{IDX_TRAIN}.gz does not exist: check --from" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_other_channels_than_the_data_sets_are_refused(name: str, tmp_path: Path) -> None:
    has = DATASETS[name].image_channels
    assert has is not None
    with refused(f"image_channels is {4 - has}", f"'{name}' has {has}", f"set image_channels to {has}"):
        open_splits(DataSettings(name, str(tmp_path)), 64, 4 - has)


@pytest.mark.parametrize("name", NAMES)
def test_overlay_puts_a_row_of_the_study_on_the_data_set(name: str) -> None:
    settings = settings_of_presets(f"shallow/lidvae,shallow/on_{name}").flat()
    known = DATASETS[name]
    assert (settings["dataset"], settings["decoder"]) == (name, "brenier")
    assert settings["image_channels"] == known.image_channels
    assert settings["image_size"] == (known.image_size or 28)
    assert terms_of(name)


@pytest.mark.parametrize(("name", "file"), [("omniglot", "omniglot-valid.npy"), ("celeba", "celeba-64-valid.npy")])
def test_a_converted_file_of_another_shape_is_refused(name: str, file: str, tmp_path: Path) -> None:
    size, channels = (28, 1) if name == "omniglot" else (64, 3)
    (tmp_path / "omniglot-source.json").write_text("{}")
    for part in ("train", "valid", "test"):
        np.save(tmp_path / file.replace("valid", part), np.zeros((2, size, size, channels), np.uint8))
    opened = open_splits(DataSettings(name, str(tmp_path)), size, channels)
    assert opened.test.read([1]).shape == (1, size, size, channels)
    np.save(tmp_path / file, np.zeros((2, size, size, 4 - channels), np.uint8))
    with refused(file, "holds uint8 numbers of shape", f"python data/{name}/prepare.py"):
        open_splits(DataSettings(name, str(tmp_path)), size, channels)


def test_omniglot_without_the_record_of_its_source_is_unfinished(tmp_path: Path) -> None:
    with refused("omniglot-source.json", "does not exist", "python data/omniglot/prepare.py"):
        open_splits(DataSettings("omniglot", str(tmp_path)), 28, 1)
