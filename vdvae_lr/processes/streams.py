"""Standard input, output and error of this process: always there, in any encoding, and with a clear end when they fail.

A stream may be closed, lie on a full disk, lead to a reader that ended, or know no Greek letters. With `mend_streams`
whoever prints need not think of that.
"""

import codecs
import errno
import io
import os
import select
import sys
import threading
from typing import Any

from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_READER_GONE

_STANDARD = ("stdin", "stdout", "stderr")  # in the order of their numbers
_IN_ASCII = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "·": "-", "×": "x", "→": "->", "…": "...", "±": "+-", "≤": "<=", "≥": ">="}
    | {"α": "alpha", "ε": "epsilon", "μ": "mu", "σ": "sigma", "Σ": "sum", "²": "^2"}
)


class OutputLostError(Exception):
    """Standard output takes no more. What is printed after this is dropped, and raises nothing.

    Args:
        cause: what the system said.
        reader_gone: it led to a program that ended, or to a terminal that was closed.
    """

    def __init__(self, cause: str, *, reader_gone: bool) -> None:
        super().__init__(
            "nobody reads the output any more"
            if reader_gone
            else f"standard output cannot be written ({cause}); free space, or send it to another place"
        )
        self.reader_gone = reader_gone
        self.exit_code = EXIT_READER_GONE if reader_gone else EXIT_INPUT_ERROR


def mend_streams() -> None:
    """Make the standard streams safe to use; a second call changes nothing. A stream that somebody replaced stays, and
    prints every letter.

    A closed stream becomes the null device. A letter that the encoding lacks is spelt out (`alpha`), or printed as an
    escape (`\\u03ba`). Where standard output fails, the main thread gets one `OutputLostError`. Where standard error
    fails, the rest is dropped, for there is no other place to say so.
    """
    codecs.register_error("spelt", _spelt)
    for number, name in enumerate(_STANDARD):
        if not _is_open(number):  # the next opened file would get its number, and everything that is printed
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
        raw if unbuffered else io.BufferedWriter(raw),  # the first as Python itself does it
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="spelt",
        line_buffering=stream is not None and stream.line_buffering,
        write_through=unbuffered,
    )


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what to print instead of letters that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end].translate(_IN_ASCII)
    return letters.encode("ascii", "backslashreplace").decode(), error.end


class _Descriptor(io.FileIO):
    """Standard output (1) or error (2), which goes to the null device once it failed."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._number = number
        self._terminal = self.isatty()  # a terminal that is gone is none
        self._lost: OutputLostError | None = None

    def write(self, data: Any) -> int:
        written = self._written(data)
        if self._lost is not None and threading.current_thread() is threading.main_thread():
            lost, self._lost = self._lost, None
            raise lost
        return written

    def _written(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select((), (self,), ())  # whoever shares the stream told it not to wait
        except OSError as error:
            _to_null_device(self._number)
            if self._number == _STANDARD.index("stdout"):
                gone = isinstance(error, ConnectionError) or (error.errno == errno.EIO and self._terminal)
                self._lost = OutputLostError(error.strerror or str(error), reader_gone=gone)
            return memoryview(data).nbytes
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
