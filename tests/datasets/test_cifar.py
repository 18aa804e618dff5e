"""CIFAR-10 in both official forms, the published split, and pickles that may not run code."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from vdvae_lr.datasets import catalogue
from vdvae_lr.datasets.catalogue import DataSettings, open_cifar10, open_splits
from vdvae_lr.errors import InputError

PER_BATCH = 4
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def planes(seed: int) -> np.ndarray:
    """One batch's rows (N, 3072): red, green and blue planes."""
    return np.random.default_rng(seed).integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)


def write_pickled(root: Path, protocol: int = 2) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        content = {b"data": planes(number), b"labels": [0] * PER_BATCH, b"batch_label": b"of 5"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))


def write_binary(root: Path) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        labels = np.full((PER_BATCH, 1), 7, np.uint8)
        np.concatenate([labels, planes(number)], axis=1).tofile(folder / f"{name}.bin")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_batches_of_every_protocol(tmp_path: Path, protocol: int):
    write_pickled(tmp_path, protocol)
    test = open_cifar10(tmp_path, held_out=2).test.read(range(PER_BATCH))
    np.testing.assert_array_equal(test, planes(5).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def test_numpy_1_and_numpy_2_names_are_both_read(tmp_path: Path):
    write_pickled(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    content = path.read_bytes()
    swapped = (
        content.replace(b"numpy._core.", b"numpy.core.")
        if b"numpy._core." in content
        else content.replace(b"numpy.core.", b"numpy._core.")
    )
    assert swapped != content
    path.write_bytes(swapped)
    assert len(open_cifar10(tmp_path, held_out=2).test) == PER_BATCH


def test_binary_and_pickled_forms_hold_the_same_images(tmp_path: Path):
    for form, write in (("py", write_pickled), ("bin", write_binary)):
        (tmp_path / form).mkdir()
        write(tmp_path / form)
    pickled, binary = (open_cifar10(tmp_path / form, held_out=3) for form in ("py", "bin"))
    for one, other in zip(
        (pickled.train, pickled.valid, pickled.test), (binary.train, binary.valid, binary.test), strict=True
    ):
        np.testing.assert_array_equal(one.read(range(len(one))), other.read(range(len(other))))


def test_the_split_equals_scikit_learns(monkeypatch: pytest.MonkeyPatch):
    selection = pytest.importorskip("sklearn.model_selection")
    train, valid = selection.train_test_split(np.arange(50_000), test_size=5000, random_state=11172018)
    images = np.arange(50_000)[:, None]
    monkeypatch.setattr(catalogue, "read_cifar", lambda root: (root, images, images))
    splits = open_cifar10(Path())
    np.testing.assert_array_equal(splits.train.read(range(45_000))[:, 0], train)
    np.testing.assert_array_equal(splits.valid.read(range(5_000))[:, 0], valid)


def test_train_and_valid_share_one_array(tmp_path: Path):
    write_pickled(tmp_path)
    splits = open_cifar10(tmp_path, held_out=3)
    assert (len(splits.train), len(splits.valid)) == (17, 3)
    assert splits.train._images is splits.valid._images


class _RunsACommand:
    def __reduce__(self):
        return os.mkdir, ("pickle-has-run-code",)


def test_a_pickle_that_would_run_code_is_refused_by_name_and_not_run(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pickled(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(pickle.dumps({b"data": _RunsACommand()}))
    with pytest.raises(InputError, match=r"data_batch_3 is refused: it asks to run 'posix\.mkdir'"):
        open_cifar10(tmp_path, held_out=2)
    assert not (tmp_path / "pickle-has-run-code").exists()


def test_missing_data_name_the_folder_and_the_command(tmp_path: Path):
    missing = r"cifar-10-batches-py does not exist; run `python data/cifar10/prepare\.py`"
    with pytest.raises(InputError, match=missing):
        open_splits(DataSettings("cifar10", str(tmp_path)), 32, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "data_batch_2 is cut short or not a pickle"),
        (pickle.dumps({b"data": planes(0)})[:-100], "data_batch_2 is cut short or not a pickle"),
        (pickle.dumps([1, 2]), "data_batch_2 holds a list instead of a dictionary"),
        (pickle.dumps({b"labels": [1]}), "data_batch_2 holds NoneType instead of uint8 rows"),
        (pickle.dumps({b"data": planes(0).astype(np.float32)}), "data_batch_2 holds float32 of shape"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, content: bytes, reason: str):
    write_pickled(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        open_cifar10(tmp_path, held_out=2)


def test_a_truncated_binary_batch_is_named(tmp_path: Path):
    write_binary(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"data_batch_4\.bin is cut short: its 12291 bytes"):
        open_cifar10(tmp_path, held_out=2)


def test_fewer_images_than_are_held_out_are_refused(tmp_path: Path):
    write_pickled(tmp_path)
    with pytest.raises(InputError, match="holds 20 images, but 5000"):
        open_cifar10(tmp_path)
