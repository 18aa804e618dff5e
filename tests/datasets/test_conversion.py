"""Downsampled ImageNet in each of its forms becomes the same `.npy` files, also after an interruption."""

import io
import pickle
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdvae_lr.datasets.catalogue import open_imagenet
from vdvae_lr.datasets.conversion import convert_imagenet, members
from vdvae_lr.errors import InputError

TRAIN = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
VALID = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def rows(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def batches() -> dict[str, np.ndarray]:
    """Twelve training batches of two images: number 10 must come after number 9."""
    parts = {f"train_data_batch_{number}": rows(TRAIN[2 * number - 2 : 2 * number]) for number in range(1, 13)}
    return parts | {"val_data": rows(VALID)}


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write_pickles(root: Path) -> list[Path]:
    for name, data in batches().items():
        (root / name).write_bytes(pickle.dumps({"data": data, "labels": [1]}))
    return [root]


def write_npz_zips(root: Path) -> list[Path]:
    for part in ("train", "val"):
        with zipfile.ZipFile(root / f"Imagenet32_{part}_npz.zip", "w") as archive:
            for name, data in batches().items():
                if name.startswith(part):
                    file = io.BytesIO()
                    np.savez(file, data=data, labels=[1])
                    archive.writestr(f"{name}.npz", file.getvalue())
    return sorted(root.glob("*.zip"))


def write_png_tars(root: Path) -> list[Path]:
    for part, images in (("train_32x32", TRAIN), ("valid_32x32", VALID)):
        with tarfile.open(root / f"{part}.tar", "w") as archive:
            for number in reversed(range(len(images))):
                content = png(images[number])
                info = tarfile.TarInfo(f"{part}/{number:05d}.png")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return sorted(root.glob("*.tar"))


def write_png_folders(root: Path) -> list[Path]:
    for part, images in (("train_32x32", TRAIN), ("valid_32x32", VALID)):
        (root / part).mkdir()
        for number, image in enumerate(images):
            (root / part / f"{number:05d}.png").write_bytes(png(image))
    return sorted(root.iterdir())


@pytest.mark.parametrize("write", [write_pickles, write_npz_zips, write_png_tars, write_png_folders])
def test_every_form_gives_the_same_files(tmp_path: Path, write):
    given, root = tmp_path / "given", tmp_path / "root"
    given.mkdir()
    written = convert_imagenet(write(given), 32, root)
    assert {path.name: count for path, count in written.items()} == {
        "imagenet32-train.npy": 24,
        "imagenet32-valid.npy": 5,
    }
    np.testing.assert_array_equal(np.load(root / "imagenet32-train.npy"), TRAIN)
    np.testing.assert_array_equal(np.load(root / "imagenet32-valid.npy"), VALID)
    assert len(open_imagenet(root, 32, held_out=4).train) == 20
    assert len(list(root.iterdir())) == 2


@pytest.mark.parametrize("write", [write_pickles, write_png_folders])
def test_an_interrupted_conversion_goes_on(tmp_path: Path, write):
    given, root = tmp_path / "given", tmp_path / "root"
    given.mkdir()
    parts = write(given)
    names = sorted(path for path in given.rglob("*") if path.is_file() and "7" in path.name and "val" not in str(path))
    broken = names[0]
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    with pytest.raises(InputError, match=broken.name):
        convert_imagenet(parts, 32, root)
    part = root / "imagenet32-train.npy.part"
    assert part.stat().st_size > 7 * 32 * 32 * 3
    with part.open("ab") as file:
        file.write(b"half a row")  # what a crash in the middle of a write leaves
    broken.write_bytes(content)
    convert_imagenet(parts, 32, root)
    np.testing.assert_array_equal(np.load(root / "imagenet32-train.npy"), TRAIN)


def test_a_finished_part_is_not_converted_again(tmp_path: Path):
    given, root = tmp_path / "given", tmp_path / "root"
    given.mkdir()
    parts = write_pickles(given)
    convert_imagenet(parts, 32, root)
    before = (root / "imagenet32-train.npy").stat().st_mtime_ns
    convert_imagenet(parts, 32, root)
    assert (root / "imagenet32-train.npy").stat().st_mtime_ns == before


def test_a_missing_part_is_named(tmp_path: Path):
    (tmp_path / "train_data_batch_1").write_bytes(pickle.dumps({"data": rows(TRAIN)}))
    with pytest.raises(InputError, match="holds no valid images"):
        convert_imagenet([tmp_path], 32, tmp_path / "root")


def test_batches_of_another_size_are_refused(tmp_path: Path):
    write_pickles(tmp_path)
    with pytest.raises(InputError, match=r"train_data_batch_1 holds uint8 of shape .* instead of uint8 rows of 12288"):
        convert_imagenet([tmp_path], 64, tmp_path / "root")


def test_nothing_usable_and_nothing_there_are_named(tmp_path: Path):
    (tmp_path / "readme.txt").write_text("no data")
    with pytest.raises(InputError, match="holds neither PNG files nor batches"):
        members([tmp_path], ExitStack())
    with pytest.raises(InputError, match=r"gone\.zip does not exist"):
        members([tmp_path / "gone.zip"], ExitStack())


def test_a_damaged_archive_is_named(tmp_path: Path):
    for path in write_png_tars(tmp_path) + write_npz_zips(tmp_path):
        content = bytearray(path.read_bytes())
        content[len(content) // 3 : len(content) // 3 + 1500] = bytes(1500)
        path.write_bytes(content[: len(content) - 3000] if path.suffix == ".tar" else content)
    for kind in ("tar", "zip"):
        with pytest.raises(InputError, match=r"(train|valid|val)\w*[./].* cannot be read|is no batch of arrays"):
            convert_imagenet(sorted(tmp_path.glob(f"*.{kind}")), 32, tmp_path / kind)
