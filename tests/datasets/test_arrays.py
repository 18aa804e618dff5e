"""`.npy` data sets: the published splits, nothing copied, and every damaged file named."""

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest

from vdvae_lr.datasets.catalogue import DataSettings, open_ffhq256, open_imagenet, open_splits
from vdvae_lr.errors import InputError


def numbered_images(count: int, size: int) -> np.ndarray:
    """Images (N, S, S, 3) whose every pixel is the image's own number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, size, size, 3)).copy()


def numbers(source) -> list[int]:
    """Which of the numbered images a source holds, in order."""
    return source.read(range(len(source)))[:, 0, 0, 0].tolist()


@pytest.fixture
def ffhq(tmp_path: Path) -> Path:
    np.save(tmp_path / "ffhq-256.npy", numbered_images(20, 256))
    return tmp_path


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    np.save(tmp_path / "imagenet32-train.npy", numbered_images(40, 32))
    np.save(tmp_path / "imagenet32-valid.npy", numbered_images(7, 32))
    return tmp_path


def test_the_held_out_counts_are_the_published_ones():
    counts = [inspect.signature(opens).parameters["held_out"].default for opens in (open_ffhq256, open_imagenet)]
    assert counts == [7_000, 5_000]


def test_ffhq256_split_is_the_published_permutation(ffhq: Path):
    np.random.seed(5)  # noqa: NPY002 (the published call)
    order = np.random.permutation(20).tolist()  # noqa: NPY002
    splits = open_ffhq256(ffhq, held_out=3)
    assert numbers(splits.train) == order[:-3]
    assert numbers(splits.valid) == order[-3:]
    assert splits.test is splits.valid


def test_imagenet_split_is_the_published_permutation_and_its_valid_file_is_the_test_set(imagenet: Path):
    np.random.seed(42)  # noqa: NPY002 (the published call)
    order = np.random.permutation(40).tolist()  # noqa: NPY002
    splits = open_imagenet(imagenet, 32, held_out=5)
    assert numbers(splits.train) == order[:-5]
    assert numbers(splits.valid) == order[-5:]
    assert numbers(splits.test) == list(range(7))


def test_pixels_stay_on_disk_and_out_of_pickles(imagenet: Path):
    source = open_imagenet(imagenet, 32, held_out=5).train
    assert isinstance(source._images, np.memmap)
    assert source._images.filename == imagenet / "imagenet32-train.npy"
    pickled = pickle.dumps(source)
    assert len(pickled) < 2_000 < 35 * 32 * 32 * 3
    copy = pickle.loads(pickled)
    assert isinstance(copy._images, np.memmap)
    assert numbers(copy) == numbers(source)


def test_read_returns_its_own_writable_copy(imagenet: Path):
    source = open_imagenet(imagenet, 32, held_out=5).train
    images = source.read([3, 1])
    assert type(images) is np.ndarray
    before = numbers(source)
    images[:] = 255
    assert numbers(source) == before


def test_describe_names_file_and_row_in_the_file(imagenet: Path):
    source = open_imagenet(imagenet, 32, held_out=5).train
    row = numbers(source)[4]
    assert source.describe(4) == f"{imagenet / 'imagenet32-train.npy'}, row {row}"


def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"ffhq-256\.npy does not exist; run `python data/ffhq256/prepare\.py`"):
        open_splits(DataSettings("ffhq256", str(tmp_path)), 256, 3)


def test_a_truncated_file_is_refused(ffhq: Path):
    path = ffhq / "ffhq-256.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"ffhq-256\.npy is cut short or not a \.npy file"):
        open_ffhq256(ffhq, held_out=3)


@pytest.mark.parametrize("content", [b"", b"these are no images", b"\x93NUMPY\x01\x00"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "ffhq-256.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"cut short or not a \.npy file"):
        open_ffhq256(tmp_path)


def test_an_array_of_python_objects_is_refused_without_unpickling(tmp_path: Path):
    np.save(tmp_path / "ffhq-256.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"cut short or not a \.npy file"):
        open_ffhq256(tmp_path)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((9, 256, 256, 3), np.float32), r"float32 numbers of shape \(9, 256, 256, 3\)"),
        (np.zeros((9, 3, 256, 256), np.uint8), r"shape \(9, 3, 256, 256\)"),
        (np.zeros((9, 256, 256), np.uint8), r"shape \(9, 256, 256\)"),
    ],
)
def test_a_wrong_shape_or_type_is_described(tmp_path: Path, images: np.ndarray, found: str):
    np.save(tmp_path / "ffhq-256.npy", images)
    with pytest.raises(InputError, match=found):
        open_ffhq256(tmp_path, held_out=3)


def test_fewer_images_than_are_held_out_are_refused(ffhq: Path):
    with pytest.raises(InputError, match="holds 20 images, but 7000 of them have to be held out"):
        open_ffhq256(ffhq)
