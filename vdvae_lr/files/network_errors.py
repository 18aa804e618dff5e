"""Turns errors of the network and its servers into one sentence for a person.

All transfers use huggingface_hub's client, so the exceptions are its own and the system's.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from vdvae_lr.errors import InputError, Unreachable

_MOST_OF_A_SIDE = 200  # letters


@contextmanager
def network_errors(source: str, remedy: str, arrived: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Inside, every error of a transfer is one sentence that names its source and what to do.

    Args:
        source: what is transferred.
        remedy: what a person can do, as the end of a sentence.
        arrived: called after an error; returns how many bytes a later call can keep.

    Raises:
        InputError: in place of the client's and the system's own exceptions; Unreachable if there is no network.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except OfflineModeIsEnabled:
        raise Unreachable(
            f"{source} is not on this machine and HF_HUB_OFFLINE forbids the network: unset it, or {remedy}"
        ) from None
    except HfHubHTTPError as error:
        raise InputError(
            f"{source} answers {status_words(error.response.status_code)}{_kept(arrived())}: {remedy}"
        ) from None
    except (HTTPError, ValueError) as error:  # ValueError: a host with an impossible name
        raise Unreachable(f"{source} cannot be reached ({first_line(error)}){_kept(arrived())}: {remedy}") from None
    except OSError as error:
        if error.errno is not None:
            reason = error.strerror or error
            raise InputError(
                f"{source} cannot be stored ({reason}){_kept(arrived())}: free space or choose another folder"
            ) from None
        raise InputError(f"{source} did not arrive with the announced length: {remedy}") from None


def _kept(size: int) -> str:
    return f" ({size:,} bytes are kept: the same command goes on from there if the server can)" if size else ""


def status_words(status: int) -> str:
    """An HTTP status in plain words."""
    return f"{status} ({_STATUS_WORDS[status]})" if status in _STATUS_WORDS else str(status)


_STATUS_WORDS: Mapping[int, str] = {
    401: "it wants a login",
    403: "it forbids access",
    404: "there is no such file",
    429: "too many requests",
    500: "the server failed",
    502: "the server is down",
    503: "the server is busy",
    504: "the server timed out",
}


def without_secrets(address: str) -> str:
    """An address without login, query and fragment, fit for others to see. Other text stays as it is."""
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return address.partition("?")[0]
    return parts._replace(netloc=host, query="", fragment="").geturl() if parts.netloc else address


def first_line(error: Exception) -> str:
    """The first line of an exception's message; the exception's type if it has no message."""
    lines = str(error).strip().splitlines()
    return plain(lines[0]) if lines else type(error).__name__


def plain(text: str) -> str:
    """Text from strangers as one readable line: without control characters, and without its middle if it is long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= 2 * _MOST_OF_A_SIDE else f"{line[:_MOST_OF_A_SIDE]} … {line[-_MOST_OF_A_SIDE:]}"
