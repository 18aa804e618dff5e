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
EXIT_READER_GONE = 141
"""Whoever read the output went away, as in `… | head` (128 + SIGPIPE)."""


class InputError(Exception):
    """A person's input cannot be used; the message is one sentence with the thing's name and the remedy."""


class UnmeasurableError(InputError):
    """One measurement that a sound model and sound images do not allow; others on the same model may still be made.

    Raised by every process or by none.
    """


def nearest_name_hint(name: str, known: Sequence[str]) -> str:
    """`" (did you mean 'x'?)"` for the known name closest to `name`, or an empty string when none is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
