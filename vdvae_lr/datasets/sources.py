"""What every data set looks like to the loader: uint8 images read by index.

Shapes: N images of the source, B images asked for, H W resolution, C channels.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, exists, is_file, is_folder

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

_NOT_DOWNLOADABLE = frozenset({"imagenet32", "imagenet64", "ffhq1024"})  # their owners hand them out to accounts only

_FINGERPRINTED = 8  # images


class ImageSource(Protocol):
    """One split of a data set. Loader workers get a pickled copy, so a source must pickle small or be `in_memory`."""

    @property
    def in_memory(self) -> bool:
        """True when reading is a plain copy from RAM, which worker processes would only slow down."""

    @property
    def replaced_images(self) -> int:
        """How many unreadable images this copy of the source has replaced by others so far."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, indices: Sequence[int] | Rows) -> Pixels:
        """The images at `indices`, (B, H, W, C) uint8, in a fresh array; `InputError` names an unreadable one."""

    def describe(self, index: int) -> str:
        """A name for image `index` that lets a person find it: its file, or its array and row."""

    def fingerprint(self) -> str:
        """Digest that tells other images, or another order, apart; cheap, and the same wherever the data lie."""


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set; where the published protocol tests on its validation images, two are the same.

    Attributes:
        left_out: how many files, folders and links beside the images were left out, by the reason.
        how: the images were split, in words that follow "split"; empty: as the data set's protocol says.
    """

    train: ImageSource
    valid: ImageSource
    test: ImageSource
    left_out: Mapping[str, int] = field(default_factory=dict)
    how: str = ""


class ArraySource:
    """Chosen rows of an array (N, H, W, C) that is held once, however many splits share it."""

    in_memory = True
    replaced_images = 0

    def __init__(self, images: Pixels, rows: Rows, name: str) -> None:
        self._images = images
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int] | Rows) -> Pixels:
        """The images at `indices`, (B, H, W, C) uint8."""
        return self._images[self._rows[np.asarray(indices, dtype=np.int64)]]

    def describe(self, index: int) -> str:
        """Array name and row."""
        return f"{self._name}, row {self._rows[index]}"

    def fingerprint(self) -> str:
        """Of the array's shape, the chosen rows, and the pixels of a few of them."""
        digest = hashlib.sha256(repr(self._images.shape).encode())
        digest.update(self._rows.astype("<i8").tobytes())
        some = np.linspace(0, len(self) - 1, min(len(self), _FINGERPRINTED)).astype(np.int64)
        digest.update(np.ascontiguousarray(self.read(some)).tobytes())
        return digest.hexdigest()


class MemoryMappedSource(ArraySource):
    """Chosen rows of a `.npy` file that stays on disk; a pickled copy opens the file again and carries no pixels."""

    in_memory = False

    def __init__(self, path: Path, rows: Rows) -> None:
        self._path = path
        super().__init__(np.lib.format.open_memmap(path, mode="r"), rows, str(path))

    def __getstate__(self) -> tuple[Path, Rows]:
        return self._path, self._rows

    def __setstate__(self, state: tuple[Path, Rows]) -> None:
        MemoryMappedSource.__init__(self, *state)

    def read(self, indices: Sequence[int] | Rows) -> Pixels:
        """The images at `indices`, (B, H, W, C) uint8, copied from the file."""
        copied: npt.NDArray[Any] = super().read(indices)
        return np.asarray(copied)  # a plain array: np.memmap's own bookkeeping is slow and of no use for a copy


def all_rows(images: Pixels) -> Rows:
    """Indices 0 … N−1 of an array (N, …)."""
    return np.arange(len(images), dtype=np.int64)


def existing(path: Path, dataset: str) -> Path:
    """`path` itself, a folder or an ordinary file that may be read.

    Raises:
        InputError: it is not there, with the command that makes it, or it may not be read.
    """
    if not exists(path):
        raise InputError(
            f"data set '{dataset}' needs {path}, which does not exist: "
            f"make it with `{preparation_command(dataset)}`, or name its folder with --data_root"
        )
    if not is_folder(path) and not is_file(path):  # a pipe would keep us waiting
        raise InputError(
            f"data set '{dataset}' needs {path}, which is neither a file nor a folder: remove it, then make it "
            f"with `{preparation_command(dataset)}`"
        )
    if is_file(path):
        try:
            path.open("rb").close()
        except OSError as error:
            raise cannot_be_read(path, error) from None
    return path


def preparation_command(dataset: str) -> str:
    """The command that fetches or converts a data set, for messages."""
    given = " --from PATH" if dataset in _NOT_DOWNLOADABLE else ""
    return f"python data/{dataset}/prepare.py{given}"
