"""A zip archive of images as data root: what a folder gives, the archive gives, and no archive harms or surprises."""

import io
import os
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from made_images import saved
from PIL import Image
from refusals import refused
from training_runs import ALONE, tiny_settings

from vdvae_lr.cli.main import main
from vdvae_lr.datasets import zipped_folder
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.folder import FolderSource, find_images, open_folder
from vdvae_lr.datasets.inventory import take_inventory
from vdvae_lr.datasets.loader import training_batches
from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import Splits
from vdvae_lr.training.loop import train

PARTS = ("train", "valid", "test")


def png(value: int) -> bytes:
    return saved(Image.new("RGB", (8, 8), (value, value, value)))


def zipped(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def numbered(count: int, folder: str = "") -> dict[str, bytes]:
    return {f"{folder}{number:03}.png": png(number) for number in range(count)}


def opened(root: Path, *, skip: bool = False) -> Splits:
    return open_folder(root, 8, 3, "skip" if skip else "stop")


def levels(source: FolderSource) -> list[int]:
    return source.read(range(len(source)))[:, 0, 0, 0].tolist()


def alone(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> FolderSource:
    """The source of an archive whose second of three images has this content."""
    zipped(path, {"0.png": png(0), "1.png": content, "2.png": png(2)}, method)
    return source_of(path)


def source_of(path: Path, *, skip: bool = False) -> FolderSource:
    tree = zipped_folder.ZippedFolder(path)
    return FolderSource(path, tree.search(path).names, 8, 3, "skip" if skip else "stop", tree)


@pytest.mark.parametrize(
    "files",
    [
        numbered(40),
        {"dataset.json": b'{"labels": []}', **numbered(30, "00000/img"), **numbered(9, "00001/img")},
        {**numbered(20, "Train/a/"), **numbered(20, "Train/b/"), **numbered(3, "val/"), **numbered(4, "test/x/")},
        {**numbered(40, "train/"), **numbered(4, "testing/"), "extra/0.png": png(1), "a.txt": b"", ".hidden.png": b""},
    ],
    ids=["flat", "as of StyleGAN", "three parts", "train and test"],
)  # fmt: skip
def test_an_archive_is_the_folder_that_it_was_made_of(tmp_path: Path, files: dict[str, bytes]) -> None:
    archive, folder = zipped(tmp_path / "photos.zip", files), tmp_path / "photos"
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(folder)
    one, other = opened(archive), opened(folder)
    assert take_inventory(one) == take_inventory(other)
    assert one.how == other.how
    for part in PARTS:
        assert levels(getattr(one, part)) == levels(getattr(other, part))
    assert one.train.describe(0).removeprefix(str(archive)) == other.train.describe(0).removeprefix(str(folder))


def test_the_order_is_that_of_the_names_not_of_the_archive(tmp_path: Path) -> None:
    files = numbered(9)
    backwards = dict(reversed(files.items()))
    assert levels(source_of(zipped(tmp_path / "a.zip", backwards))) == list(range(9))


def test_a_folder_inside_an_archive_can_be_named(tmp_path: Path) -> None:
    files = {**numbered(5, "photos/train/"), **numbered(2, "photos/val/"), **numbered(3, "others/")}
    archive = zipped(tmp_path / "all.zip", files)
    with refused(str(archive / "photos"), "'train' and 'val'", "name that folder with --data_root"):
        opened(archive)
    splits = open_splits(DataSettings("folder", str(archive / "photos")), 8, 3)
    assert [len(splits.train), len(splits.valid)] == [5, 2]
    with refused(str(archive / "nowhere"), "holds no images", "put"):
        opened(archive / "nowhere")


def test_two_folders_for_one_part_are_refused_in_an_archive_too(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {**numbered(3, "train/"), **numbered(2, "val/"), **numbered(2, "valid/")})
    with refused(str(archive), "'val' and 'valid'", "keep one"):
        opened(archive)


def test_many_processes_read_one_archive_and_count_its_bad_images(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", numbered(12) | {"003.png": b"no image"}, zipfile.ZIP_STORED)
    source = source_of(archive, skip=True)
    source.read([0])  # the archive is open here, and each reader has to open it for itself

    def first(workers: int) -> list[tuple[list[int], int]]:
        batches = training_batches(source, TrainingOrder(12, 4, 4, 0, 1, 0), 0, workers, pin_memory=False)
        found = [next(batches) for _ in range(6)]
        return [(batch.pixels[:, 0, 0, 0].tolist(), batch.bad_images) for batch in found]

    read = first(2)
    assert read == first(0)
    assert sum(bad for _, bad in read) == 2  # once in each of two epochs
    assert {level for of_batch, _ in read for level in of_batch} == {*range(12)} - {3}


def test_a_forked_process_opens_the_archive_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(zipped(tmp_path / "a.zip", numbered(3)))
    source.read([0])
    before = source._opener._zip
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert source._opener._zip is not before
    before.close()
    assert levels(source) == [0, 1, 2]


def test_what_is_no_image_is_left_out_and_counted(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.zip",
        numbered(5)
        | {"../up.png": png(1), "/etc/x.png": png(1), "a/../b.png": png(1), "inner.zip": b"PK", "LICENSE": b""}
        | {"__MACOSX/._000.png": b"", ".git/x.png": b""},
    )
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "000.png")
        archive.mkdir("empty.png")
    found = take_inventory(opened(path))
    assert sum(found[part]["images"] for part in PARTS) == 5
    assert found["left_out"] == {
        "name that leads out of the archive": 3, "hidden": 2, ".zip": 1, "file without an ending": 1,
        "link in an archive": 1,
    }  # fmt: skip


def test_names_of_windows_are_in_their_folders(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {**numbered(3, "train\\a\\"), **numbered(2, "val\\")})
    content = bytearray(path.read_bytes())
    for place in range(len(content) - 4):
        if content[place : place + 4] == b"PK\1\2":
            content[place + 5] = 0  # made on MS-DOS
    path.write_bytes(content)
    splits = opened(path)
    assert [len(splits.train), len(splits.valid)] == [3, 2]
    assert splits.train.describe(0) == str(path / "train/a/000.png")


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"x", "a.png/": b""}], ids=["empty", "without images"])
def test_an_archive_without_images_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with refused(str(tmp_path / "a.zip"), "holds no images", "put .bmp"):
        opened(zipped(tmp_path / "a.zip", files))


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["nothing", "text", "cut"])
def test_what_is_no_whole_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = zipped(tmp_path / "a.zip", numbered(3))
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with refused(str(path), "is cut short or not a zip archive", "with --data_root"):
        opened(path)


def test_a_wrong_checksum_is_a_bad_image_and_others_stand_in_for_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", numbered(4), zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(png(2), png(2)[:-20] + b"spoilt" + png(2)[-14:]))
    with refused(str(path / "002.png"), "cannot be read as an image (Bad CRC-32", "--bad_images skip"):
        source_of(path).read([1, 2])
    skipping = source_of(path, skip=True)
    assert levels(skipping) == [0, 1, 3, 3]
    assert skipping.replaced_images == 1


def test_an_encrypted_image_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", numbered(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with refused(str(path / "000.png"), "it is encrypted", "--bad_images skip"):
        source_of(path).read([0])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_unusual_packing_is_named(tmp_path: Path, method: int) -> None:
    with refused("1.png", "packed in a way that zip archives of images do not use", "--bad_images skip"):
        alone(tmp_path / "a.zip", png(1), method).read([1])


def test_a_file_that_says_it_is_huge_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = alone(tmp_path / "a.zip", bytes(2_000_000))
    with refused("1.png", "cannot be read as an image", "--bad_images skip"):
        source.read([1])  # two million bytes of nothing are allowed, but no image
    monkeypatch.setattr(zipped_folder, "LARGEST_FILE", 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with refused("1.png", "would unpack to 2,000,000 bytes, and no image that is decoded", "--bad_images skip"):
        source.read([1])


def test_a_file_that_hides_its_size_is_not_unpacked_further(tmp_path: Path) -> None:
    """It says that it has 100 bytes, and would unpack to 64 MB."""
    tracemalloc = pytest.importorskip("tracemalloc")
    path = tmp_path / "a.zip"
    alone(path, bytes(64_000_000))
    content = bytearray(path.read_bytes())
    entry = content.index(b"1.png", content.index(b"PK\1\2")) - 46
    content[entry + 24 : entry + 28] = struct.pack("<I", 100)
    path.write_bytes(content)
    source = source_of(path)
    tracemalloc.start()
    with refused("1.png", "Bad CRC-32", "--bad_images skip"):
        source.read([1])
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_an_image_of_too_many_pixels_is_refused_as_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = alone(tmp_path / "a.zip", saved(Image.new("RGB", (50, 50))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with refused("1.png", "2,500 pixels", "--bad_images skip"):
        source.read([1])


def test_an_archive_that_is_gone_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", numbered(3))
    source = source_of(path)
    path.unlink()
    with refused(str(path), "does not exist", "--data_root"):
        source_of(path)
    zipped(path, {"000.png": png(0)})
    with refused(str(path / "001.png"), "no longer there", "put it back"):
        pickle.loads(pickle.dumps(source)).read([1])  # as a reader that starts later


def test_names_are_found_by_name(tmp_path: Path) -> None:
    assert find_images(zipped(tmp_path / "a.zip", {"ü/1.JPG": b"", "z.webp": b"", "ü/b.txt": b""})) == [
        "z.webp", "ü/1.JPG",
    ]  # fmt: skip


def test_an_image_in_an_archive_is_decoded_as_its_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    path = zipped(tmp_path / "a.zip", {"a.jpg": file.getvalue()})
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    here, there = source_of(path), FolderSource(tmp_path, ["a.jpg"], 8, 3)
    np.testing.assert_array_equal(here.read([0]), there.read([0]))


def test_a_command_reads_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = zipped(tmp_path / "a.zip", numbered(4))
    words = ["noise", "model=fashion", "--dataset", "folder", "--data_root", str(archive), "--images", "0"]
    words += ["--variances", "0.3", "--groups", "12:13", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "Images: 4 found, split by their names: 2 training, 1 validation, 1 test." in capsys.readouterr().out
    archive.write_bytes(b"PK")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_a_run_begun_on_a_folder_goes_on_with_its_archive_bit_for_bit(tmp_path: Path) -> None:
    archive, folder = zipped(tmp_path / "photos.zip", numbered(30)), tmp_path / "photos"
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(folder)

    def run(root: Path) -> bytes:
        places = {"data_root": str(root), "save_dir": str(tmp_path), "desc": "run"}
        quick = {"num_images_visualize": 1, "iters_per_images": 4, "iters_per_eval": 4}
        assert train(tiny_settings(iters=4, iters_per_save=2, **quick, **places), ALONE) == 0
        return (last / "model.safetensors").read_bytes()

    last = tmp_path / "run/checkpoints/step-00000004"
    unbroken = run(folder)
    shutil.rmtree(last)  # back to step 2
    assert run(archive) == unbroken
