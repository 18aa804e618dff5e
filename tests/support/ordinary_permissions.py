"""Make permission bits count, even if the tests run as root."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VERSION_3 = 0x20080522
_READS_ANYTHING = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Inside this context, this thread may not read, write or enter `path`. Root drops its capabilities meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with _as_an_ordinary_user():
            yield
    finally:
        path.chmod(mode)


@contextmanager
def _as_an_ordinary_user() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    library, header, sets = ctypes.CDLL(None), _Header(_VERSION_3, 0), (_Sets * 2)()
    if library.capget(ctypes.byref(header), sets) != 0:
        pytest.skip("root may read anything, and cannot give that up here")
    before = sets[0].effective
    sets[0].effective = before & ~_READS_ANYTHING
    assert library.capset(ctypes.byref(header), sets) == 0
    try:
        yield
    finally:
        sets[0].effective = before
        assert library.capset(ctypes.byref(header), sets) == 0
