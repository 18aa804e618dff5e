"""What the loader asks of every data set: uint8 images, read by index.

Shapes: N images of a split, B images that are read, H W resolution, C channels.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

_FINGERPRINTED = 8  # images whose pixels enter a fingerprint


class ImageSource(Protocol):
    """One split of a data set.

    Loader workers get a pickled copy, so a source must either pickle small or be `in_memory`.
    """

    @property
    def in_memory(self) -> bool:
        """True if reading only copies from RAM. Worker processes would slow that down, so none are started."""

    @property
    def replaced_images(self) -> int:
        """How many unreadable images this copy of the source has replaced by others so far."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, indices: Sequence[int] | Rows) -> Pixels:
        """The images at `indices`, (B, H, W, C) uint8, in a fresh array; `InputError` names an unreadable one."""

    def describe(self, index: int) -> str:
        """Where a person finds image `index`: its file, or its array and row."""

    def fingerprint(self) -> str:
        """A digest that changes with the images or their order, but not with their folder; quick to compute."""


@dataclass(frozen=True)
class Splits:
    """The three parts of a data set. `valid` and `test` are one object if the published protocol uses one for both."""

    train: ImageSource
    valid: ImageSource
    test: ImageSource
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many files, folders and links were left out, by the reason."""
    how: str = ""
    """How the images were split, in words that follow "split"; empty for the data set's own protocol."""


class ArraySource:
    """Chosen rows of an array (N, H, W, C). Several splits may share one array."""

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
        """The array's name and the row."""
        return f"{self._name}, row {self._rows[index]}"

    def fingerprint(self) -> str:
        """Digest of the array's shape, the chosen rows, and the pixels of a few of them."""
        digest = hashlib.sha256(repr(self._images.shape).encode())
        digest.update(self._rows.astype("<i8").tobytes())
        some = np.linspace(0, len(self) - 1, min(len(self), _FINGERPRINTED)).astype(np.int64)
        digest.update(np.ascontiguousarray(self.read(some)).tobytes())
        return digest.hexdigest()


class MemoryMappedSource(ArraySource):
    """Chosen rows of a `.npy` file that stays on disk. A pickled copy opens the file again and carries no pixels."""

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
        return np.asarray(copied)  # a plain array: np.memmap's bookkeeping is slow and a copy does not need it


def all_rows(images: Pixels) -> Rows:
    """Indices 0 … N−1 of an array (N, …)."""
    return np.arange(len(images), dtype=np.int64)
