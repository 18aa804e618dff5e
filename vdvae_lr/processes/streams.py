"""Make this process's standard streams and environment safe to use, before anything is printed.

A stream may be closed, lie on a full disk, lead to a program that has ended, or be unable to show Greek letters. After
`mend_streams`, code that prints need not think of that.
"""

import codecs
import errno
import io
import os
import select
import sys
import threading
from pathlib import Path
from typing import Any

from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_READER_GONE

_STANDARD = ("stdin", "stdout", "stderr")  # in the order of their numbers
_IN_ASCII = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "·": "-", "×": "x", "→": "->", "…": "...", "±": "+-", "≤": "<=", "≥": ">="}
    | {"α": "alpha", "ε": "epsilon", "μ": "mu", "σ": "sigma", "Σ": "sum", "²": "^2"}
)
_LONGEST_TEMPORARY_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes. multiprocessing puts sockets into that folder, and a socket's whole path may have 107 bytes."""
_SHORT_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


class OutputLostError(Exception):
    """Standard output can no longer be written. What is printed afterwards is dropped, and raises nothing.

    Args:
        cause: what the system said.
        reader_gone: the program that read the output has ended, or the terminal was closed.
        terminal_closed: it was the terminal. The system then sends SIGHUP, too, sometimes after the write has failed.
    """

    def __init__(self, cause: str, *, reader_gone: bool, terminal_closed: bool = False) -> None:
        super().__init__(
            "nobody reads the output any more"
            if reader_gone
            else f"standard output cannot be written ({cause}); free space, or send it to another place"
        )
        self.reader_gone = reader_gone
        self.terminal_closed = terminal_closed
        self.exit_code = EXIT_READER_GONE if reader_gone else EXIT_INPUT_ERROR


def prepare_process() -> None:
    """Call this before anything is printed and before torch is imported. A second call does nothing."""
    mend_streams()
    _shorten_temporary_folder()
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip("0"):  # rich prints nothing at all in a width of 0
            del os.environ[name]


def mend_streams() -> None:
    """Make the standard streams safe to use. A second call changes nothing.

    A closed stream becomes the null device. A letter that the encoding lacks is spelt out (`alpha`) or printed as an
    escape (`\\u03ba`). If standard output fails, the main thread gets one `OutputLostError`. If standard error fails,
    the rest is dropped, since there is no other place to say so. A stream that somebody has replaced stays, and also
    spells out letters.
    """
    codecs.register_error("spelt", _spelt)
    for number, name in enumerate(_STANDARD):
        if not _is_open(number):  # else the next opened file would get its number, and all that is printed
            _to_null_device(number)
        stream = getattr(sys, name)
        if name == "stdin":
            sys.stdin = stream or open(number, encoding="utf-8", closefd=False)  # noqa: SIM115 (open to the end)
        elif stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _mended(number, stream))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelt")


def _mended(number: int, stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    raw = _Descriptor(number)
    unbuffered = stream is not None and stream.write_through  # PYTHONUNBUFFERED
    return io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),  # as Python itself does it
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="spelt",
        line_buffering=stream is not None and stream.line_buffering,
        write_through=unbuffered,
    )


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """A codecs error handler: what to print instead of letters that the encoding lacks, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end].translate(_IN_ASCII)
    return letters.encode("ascii", "backslashreplace").decode(), error.end


class _Descriptor(io.FileIO):
    """Standard output (1) or error (2). After a failed write it leads to the null device."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number = number
        self._terminal = self.isatty()  # asked now: a closed terminal no longer counts as one
        self._lost: OutputLostError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select((), (self,), ())  # another program that shares the stream made it non-blocking
        except OSError as error:
            _to_null_device(self._number)
            if self._number == _STANDARD.index("stdout"):
                closed = error.errno == errno.EIO and self._terminal
                gone = closed or isinstance(error, ConnectionError)
                cause = error.strerror or str(error)
                self._lost = OutputLostError(cause, reader_gone=gone, terminal_closed=closed)
            written = memoryview(data).nbytes
        if self._lost is not None and threading.current_thread() is threading.main_thread():
            lost, self._lost = self._lost, None
            raise lost
        return written


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _to_null_device(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(null, number)
        os.close(null)


def _shorten_temporary_folder() -> None:
    """Choose another temporary folder if its path is too long for the sockets of processes that read images."""
    chosen = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "")  # tempfile looks in this order
    if len(os.fsencode(Path(chosen).absolute())) <= _LONGEST_TEMPORARY_FOLDER:
        return
    usable = (name for name in _SHORT_TEMPORARY_FOLDERS if os.access(name, os.W_OK | os.X_OK))
    short = next(usable, None)
    if short is not None:
        os.environ["TMPDIR"] = short
