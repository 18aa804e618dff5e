"""The exception for a person's mistake, and the exit codes.

Whatever a person can get wrong (a setting, a file, an image, weights, a folder's permissions) raises `InputError` with
one sentence that names the thing and the remedy. The command line prints that sentence and exits with
`EXIT_INPUT_ERROR`. `processes/failures.py` handles all other exceptions.
"""

from collections.abc import Sequence
from difflib import get_close_matches

EXIT_INPUT_ERROR = 2
EXIT_PEER_LOST = 69
"""Another process of the run failed or disappeared (EX_UNAVAILABLE of sysexits)."""
EXIT_RUN_AGAIN = 75
"""The run was told to stop and has saved; the same command goes on. A batch system should requeue it (EX_TEMPFAIL)."""
EXIT_INTERRUPTED = 130
"""Interrupted from the keyboard (128 + SIGINT)."""
EXIT_READER_GONE = 141
"""The reader of the output went away, as in `… | head` (128 + SIGPIPE)."""


class InputError(Exception):
    """A person's input cannot be used; the message is one sentence that names the thing and the remedy.

    The message shows unprintable characters, such as a byte of a file name that is not UTF-8, as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Unreachable(InputError):
    """Something is not on this machine, and no network is there to fetch it."""


class UnmeasurableError(InputError):
    """One measurement is impossible although model and images are sound; others on the same model may be possible.

    All processes raise it, or none.
    """


def printable(text: str) -> str:
    """The text on one line, with escapes for unprintable characters: `caf\\xe9.png`, `two\\nlines`."""
    return text if text.isprintable() else "".join(map(_printable_letter, text))


def first_line(error: BaseException) -> str:
    """What an error of a library says first, at most 200 letters of it; the name of its kind if it says nothing."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _printable_letter(letter: str) -> str:
    if letter.isprintable():
        return letter
    if "\udc80" <= letter <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def nearest_name_hint(name: str, known: Sequence[str]) -> str:
    """`" (did you mean 'x'?)"` with the known name closest to `name` in any case; empty if none is close."""
    spelt = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), spelt, n=1, cutoff=0.6)
    return f" (did you mean '{spelt[close[0]]}'?)" if close else ""
