"""The one exception a user may cause.

Whatever a person can get wrong — a setting, a file, an image, weights, a folder's permissions — raises `InputError`
with one sentence that names the thing and the remedy. The command line prints that sentence and exits with
`EXIT_INPUT_ERROR`; `failures.py` says what becomes of any other exception.
"""

from collections.abc import Sequence
from difflib import get_close_matches

EXIT_INPUT_ERROR = 2
EXIT_PEER_LOST = 69
"""Another process of the run failed or is gone (sysexits' EX_UNAVAILABLE)."""
EXIT_RUN_AGAIN = 75
"""Told to stop, and saved: the same command again goes on (sysexits' EX_TEMPFAIL); a batch system should requeue."""
EXIT_INTERRUPTED = 130
"""Interrupted from the keyboard (128 + SIGINT)."""
EXIT_READER_GONE = 141
"""Whoever read the output went away, as in `… | head` (128 + SIGPIPE)."""


class InputError(Exception):
    """A person's input cannot be used; the message is one sentence with the thing's name and the remedy.

    What no terminal can show, such as a byte of a file name that is not UTF-8, stands in the message as an escape.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Unreachable(InputError):
    """Something is not on this machine, and there is no network to fetch it."""


class UnmeasurableError(InputError):
    """One measurement that a sound model and sound images do not allow; others on the same model may still be made.

    Raised by every process or by none.
    """


def printable(text: str) -> str:
    """The text on one line, with escapes in place of characters that cannot be shown: `caf\\xe9.png`, `two\\nlines`."""
    return text if text.isprintable() else "".join(map(_printable_letter, text))


def _printable_letter(letter: str) -> str:
    if letter.isprintable():
        return letter
    if "\udc80" <= letter <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def nearest_name_hint(name: str, known: Sequence[str]) -> str:
    """`" (did you mean 'x'?)"` for the known name closest to `name`, whatever the case; empty when none is close."""
    spelt = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), spelt, n=1, cutoff=0.6)
    return f" (did you mean '{spelt[close[0]]}'?)" if close else ""
