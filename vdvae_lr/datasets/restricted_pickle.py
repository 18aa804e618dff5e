"""Reading the pickled arrays of CIFAR-10 and downsampled ImageNet without letting a pickle run code."""

import codecs
import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from vdvae_lr.errors import InputError

# numpy moved its internals between versions 1 and 2; a pickle names the place that wrote it, and both mean these two.
_RECONSTRUCT: Any = np.empty(0, np.uint8).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(0, np.uint8).__reduce_ex__(5)[0]

_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("_codecs", "encode"): codecs.encode,  # how old protocols spell bytes
    ("builtins", "bytearray"): bytearray,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(f"it asks to run '{module}.{name}'")
        return _ALLOWED[module, name]


def load_arrays(file: IO[bytes], name: str, remedy: str) -> dict[str, Any]:
    """The dictionary of arrays and plain values pickled in `file`, its keys as text.

    Raises `InputError` naming `name` and `remedy` when the pickle needs anything but numpy arrays and plain containers
    (nothing of it is run), is damaged, or holds something other than a dictionary.
    """
    try:
        content = _ArrayUnpickler(file, encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{name} is refused: {error}, where only arrays are expected; {remedy}") from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise InputError(f"{name} is cut short or not a pickle ({type(error).__name__}: {error}): {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{name} holds a {type(content).__name__} instead of a dictionary of arrays: {remedy}")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def channels_last(data: Any, image_size: int, name: str, remedy: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Rows of 3·image_size² bytes, planes of red, green, blue, as images (N, H, W, 3); `InputError` for other data."""
    length = 3 * image_size**2
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != length:
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"{name} holds {found} instead of uint8 rows of {length} bytes: {remedy}")
    return np.ascontiguousarray(data.reshape(-1, 3, image_size, image_size).transpose(0, 2, 3, 1))
