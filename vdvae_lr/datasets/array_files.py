"""Files that hold many images: `.npy` arrays, the `idx` files of MNIST and Fashion-MNIST, and CIFAR-10's batches.

Every reader checks that the file is whole and of the right kind. None of them runs code that a file contains.
Shapes: N images, H W resolution, C channels.
"""

import codecs
import gzip
import pickle
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, exists, is_file, is_folder
from vdvae_lr.files.whole_file import replacing

IDX_TRAIN, IDX_VALID, IDX_TEST = (f"{part}-images-idx3-ubyte" for part in ("train", "valid", "t10k"))
IDX_SIDE = 28
CIFAR_PICKLED, CIFAR_BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
CIFAR_TEST = "test_batch"

_IDX_HEADER = struct.Struct(">IIII")  # magic, images, rows, columns
_IDX_MAGIC = 0x00000803  # unsigned bytes in three dimensions
_CIFAR_SIDE = 32
_CIFAR_RECORD = 1 + 3 * _CIFAR_SIDE**2  # bytes: a label, then the red, green and blue planes

# A pickle names the module that made it, and numpy 2 renamed its modules. These two functions serve both versions.
_RECONSTRUCT: Any = np.empty(0, np.uint8).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(0, np.uint8).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("_codecs", "encode"): codecs.encode,  # old pickle protocols store bytes with it
    ("builtins", "bytearray"): bytearray,
}


class DataFileError(InputError):
    """A data set's file is damaged. `catalogue.naming_the_remedy` adds the remedy, which depends on the data set."""


class MissingDataError(DataFileError):
    """A data set's file does not exist."""


def existing(path: Path) -> Path:
    """`path` itself, if it is a folder or a readable file; raises InputError if it is anything else."""
    if not exists(path):
        raise MissingDataError(f"{path} does not exist")
    if is_folder(path):
        return path
    if not is_file(path):  # opening a pipe would block
        raise DataFileError(f"{path} is neither a file nor a folder")
    try:
        path.open("rb").close()
    except OSError as error:
        raise cannot_be_read(path, error) from None
    return path


def map_npy(path: Path, image_size: int, channels: int = 3) -> Pixels:
    """Map a `.npy` file (N, image_size, image_size, channels) uint8 into memory; raises InputError if it is none."""
    try:
        images = np.lib.format.open_memmap(existing(path), mode="r")
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise cannot_be_read(path, error) from None
        raise DataFileError(f"{path} is cut short or not a .npy file of images ({error})") from error
    expected = (image_size, image_size, channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise DataFileError(
            f"{path} holds {images.dtype} numbers of shape {images.shape} instead of uint8 numbers of shape "
            f"(N, {', '.join(map(str, expected))})"
        )
    return images


def write_npy(path: Path, shape: tuple[int, int, int, int], images: Iterable[Pixels]) -> None:
    """Write a `.npy` file (N, H, W, C) uint8, whole or not at all, from images or blocks of them in turn.

    Raises:
        InputError: the disk refuses. A full disk is noticed here, whereas a write to a memory map would be killed.
    """
    with replacing(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for block in images:
            file.write(block.tobytes())


def read_idx(root: Path, name: str) -> Pixels:
    """Read the images (N, 28, 28, 1) uint8 of `root/name` or `root/name.gz`; raises InputError if it is damaged."""
    plain = root / name
    path = existing(plain if exists(plain) else root / f"{name}.gz")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:  # errors of a damaged archive have no number
            raise cannot_be_read(path, error) from None
        raise DataFileError(f"{path} is damaged ({error})") from error
    if len(content) < _IDX_HEADER.size:
        raise DataFileError(f"{path} is cut short inside its header")
    magic, n_images, height, width = _IDX_HEADER.unpack_from(content)
    if magic != _IDX_MAGIC or (height, width) != (IDX_SIDE, IDX_SIDE):
        raise DataFileError(f"{path} is not an idx file of {IDX_SIDE}×{IDX_SIDE} images")
    found, expected = len(content) - _IDX_HEADER.size, n_images * IDX_SIDE**2
    if found != expected:
        raise DataFileError(f"{path} holds {found} bytes of pixels instead of {expected}")
    return np.frombuffer(content, np.uint8, offset=_IDX_HEADER.size).reshape(n_images, IDX_SIDE, IDX_SIDE, 1)


def write_idx(images: Pixels) -> bytes:
    """The content of an idx file that holds `images` (N, 28, 28, 1)."""
    return _IDX_HEADER.pack(_IDX_MAGIC, *images.shape[:3]) + images.tobytes()


def read_cifar(root: Path) -> tuple[Path, Pixels, Pixels]:
    """Read CIFAR-10 from its pickled batches or, without those, from its binary ones.

    Returns the batches' folder, and the training and test images (N, 32, 32, 3). Raises InputError if a batch is
    missing or damaged.
    """
    pickled = not exists(root / CIFAR_BINARY) or exists(root / CIFAR_PICKLED)
    folder = existing(root / (CIFAR_PICKLED if pickled else CIFAR_BINARY))
    read = _pickled_batch if pickled else _binary_batch
    train = np.concatenate([read(folder / f"data_batch_{number}") for number in range(1, 6)])
    return folder, train, read(folder / CIFAR_TEST)


def _pickled_batch(path: Path) -> Pixels:
    with existing(path).open("rb") as file:
        return channels_last(load_arrays(file, str(path)).get("data"), _CIFAR_SIDE, str(path))


def _binary_batch(path: Path) -> Pixels:
    path = existing(path.with_suffix(".bin"))
    numbers = np.fromfile(path, np.uint8)
    if len(numbers) == 0 or len(numbers) % _CIFAR_RECORD:
        raise DataFileError(f"{path} is cut short: its {len(numbers)} bytes are not whole records of {_CIFAR_RECORD}")
    return channels_last(numbers.reshape(-1, _CIFAR_RECORD)[:, 1:], _CIFAR_SIDE, str(path))


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses every function and class that numpy arrays do not need."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(f"it asks to run '{module}.{name}'")
        return _ALLOWED[module, name]


def load_arrays(file: IO[bytes], name: str) -> dict[str, Any]:
    """Read a pickled dictionary of arrays and plain values, with its keys as text.

    Raises DataFileError, with the file's `name`, if the pickle is damaged, is no dictionary, or asks to run code. No
    code runs.
    """
    try:
        content = _ArrayUnpickler(file, encoding="bytes").load()
    except InputError as error:
        raise DataFileError(f"{name} is refused: {error}, where only arrays are expected") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DataFileError(f"{name} is cut short or not a pickle ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise DataFileError(f"{name} holds a {type(content).__name__} instead of a dictionary of arrays")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def channels_last(data: Any, image_size: int, name: str) -> Pixels:
    """Turn rows of 3·image_size² bytes (planes of red, green, blue) into images (N, H, W, 3); else DataFileError."""
    length = 3 * image_size**2
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != length:
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataFileError(f"{name} holds {found} instead of uint8 rows of {length} bytes")
    return np.ascontiguousarray(data.reshape(-1, 3, image_size, image_size).transpose(0, 2, 3, 1))
