"""Arrays of numbers in a `.mat` file of MATLAB 5 to 7, the level 5 of its format.

scipy's reader is not used: with a few changed bytes in a file, scipy 1.17 ends the whole process. A file may come from
strangers, so this reader takes plain arrays of the expected shapes only, and unpacks no more than they need.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vdvae_lr.datasets.array_files import DataFileError, existing
from vdvae_lr.files.paths import cannot_be_read

_HEADER_BYTES = 128  # text; then, in the last four bytes, the version 1.0 and the byte order
_BYTE_ORDERS = {b"\0\1IM": "<", b"\1\0MI": ">"}
_MATRIX, _COMPRESSED = 14, 15  # kinds of top-level elements
_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # double, single and whole numbers; below: cells, structs, objects, text, sparse
_IS_COMPLEX = 0x800
_DAMAGES = (struct.error, zlib.error, ValueError, KeyError, TypeError, OverflowError)


class _Variable(NamedTuple):
    name: str
    flags: int
    """The class in the lowest byte."""
    shape: tuple[int, ...]
    numbers: memoryview
    """The element that holds the numbers, with its tag."""
    is_whole: bool


def read_arrays(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[Any]]:
    """The real arrays with these names, which must have these shapes; the file's other variables are skipped.

    A number may be stored in a smaller type than MATLAB's own, with the same value.

    Raises:
        DataFileError: the file is damaged, of another level, or lacks one of the variables in this form.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    others: list[str] = []
    most = 9 * max(map(prod, shapes.values())) + (1 << 16)  # bytes: 8 for a number, and some for what is around them
    try:
        with existing(path).open("rb") as file:
            order = _BYTE_ORDERS.get(file.read(_HEADER_BYTES)[-4:])
            if order is None:
                raise DataFileError(f"{path} is no .mat file of MATLAB 5 to 7")
            for variable in _variables(file, order, most):
                if variable.name in shapes:
                    arrays[variable.name] = _array(path, variable, shapes[variable.name], order)
                else:
                    others.append(variable.name)
    except OSError as error:
        raise cannot_be_read(path, error) from None
    except _DAMAGES as error:
        raise DataFileError(f"{path} is damaged ({error})") from error
    missing = [name for name in shapes if name not in arrays]
    if missing:
        known = ", ".join([*arrays, *others])[:200]
        raise DataFileError(f"{path} has no variable '{missing[0]}', only: {known or 'nothing'}")
    return arrays


def _variables(file: IO[bytes], order: str, most: int) -> Iterator[_Variable]:
    """The variables of an open file in turn, with at most `most` bytes of each."""
    while tag := file.read(8):
        kind, length = struct.unpack(f"{order}II", tag)
        after = file.tell() + length
        content = file.read(min(length, most))
        is_whole = len(content) == length
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(content, most)
            kind, length = struct.unpack_from(f"{order}II", unpacked)
            content = unpacked[8:]
            is_whole = unpacking.eof and len(content) == length
        if kind == _MATRIX:
            yield _parsed(memoryview(content), order, is_whole)
        file.seek(after)


def _parsed(matrix: memoryview, order: str, is_whole: bool) -> _Variable:
    _, flags, start = _element(matrix, 0, order)
    _, shape, start = _element(matrix, start, order)
    _, name, start = _element(matrix, start, order)
    (bits,) = struct.unpack_from(f"{order}I", flags)
    sides = tuple(np.frombuffer(shape, f"{order}i4").tolist())
    return _Variable(bytes(name).decode("latin-1"), bits, sides, matrix[start:], is_whole)


def _element(content: memoryview, start: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at `start`, and where the next one starts: elements fill multiples of 8 bytes."""
    (kind,) = struct.unpack_from(f"{order}I", content, start)
    if kind >> 16:  # a small element: type and length share four bytes, and the content has the other four
        return kind & 0xFFFF, content[start + 4 : start + 4 + (kind >> 16)], start + 8
    (length,) = struct.unpack_from(f"{order}I", content, start + 4)
    end = start + 8 + length
    return kind, content[start + 8 : end], end + -end % 8


def _array(path: Path, variable: _Variable, expected: tuple[int, ...], order: str) -> npt.NDArray[Any]:
    if variable.flags & 0xFF not in _NUMERIC_CLASSES or variable.flags & _IS_COMPLEX:
        raise DataFileError(f"{path}: '{variable.name}' is no array of real numbers")
    if variable.shape != expected:
        raise DataFileError(f"{path}: '{variable.name}' has the shape {variable.shape} instead of {expected}")
    if not variable.is_whole:
        raise DataFileError(f"{path} is cut short or damaged inside '{variable.name}'")
    kind, numbers, _ = _element(variable.numbers, 0, order)
    return np.frombuffer(numbers, order + _NUMBER_TYPES[kind]).reshape(expected, order="F")
