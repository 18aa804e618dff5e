"""Downloads one file: whole or not at all, resumed after a break, checked, and by one process at a time.

    NAME           the file; it appears when it is whole and right
    NAME.part      what has arrived so far; a later call goes on from its end
    NAME.part.tag  the version (ETag or date) that the part belongs to, so that two versions are never joined
    NAME.sha256    size, origin and digest of the first download, as `sha256sum --check` reads them

Requests go through huggingface_hub's HTTP client, which knows proxies, the offline mode, and servers that ask for a
pause.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from rich.progress import Progress, TaskID

from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import file_sha256
from vdvae_lr.files.network_errors import network_errors, without_secrets
from vdvae_lr.files.progress_bar import progress_bar
from vdvae_lr.files.whole_file import disk_errors

_RETRIES_AT_FIRST = 2  # while no byte has arrived
_RETRIES = 5  # in a row without a new byte, after some have arrived
_LONGEST_PAUSE_S = 8.0
_HOST = re.compile(r"^[\w.:-]+$")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
_LONGEST, _LONGEST_SHOWN = 8_000, 200  # characters of an address; servers accept no more
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")

Check = Callable[[Path], object]
"""Reads a file, and raises InputError if the file is of no use."""


def fetch(
    url: str, target: Path, remedy: str, sha256: str | None = None, unpacked: bool = False, check: Check | None = None
) -> Path:
    """`target`, downloaded from `url` if it is not there yet. Its digest is checked in both cases.

    Args:
        url: http or https address.
        target: path of the file; its folder is made.
        remedy: what a person can do if the address does not help, as the end of a sentence.
        sha256: the known digest; None: the first download records the digest, and later calls compare with it.
        unpacked: the digest is that of the content inside the gzip wrapping.
        check: called once on what has arrived, so that a page that says "down for maintenance" is not taken for the
            file.

    Raises:
        InputError: the address, the network, the disk or the content fails; what has arrived stays for the next call.
    """
    if not _is_address(url):
        raise InputError(f"{without_secrets(url)[:_LONGEST_SHOWN]!r} is no address like https://HOST/FILE: {remedy}")
    with disk_errors(target):
        there = target.exists()  # without the lock: the file may lie in a folder that this user can only read
    if not there:
        with alone(target):
            if not target.exists():
                _download(url, target, remedy)
                settle(target, without_secrets(url), remedy, sha256, unpacked, check)
                return target
    check_digest(target, target, remedy, sha256, unpacked)
    return target


def _is_address(url: str) -> bool:
    """Whether the client can take `url`. Its own errors for a broken address differ between its versions."""
    if len(url) > _LONGEST or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(_HOST.match(parts.hostname or "")) and parts.port != 0
    except ValueError:  # from brackets, or from the port
        return False


def check_https(url: str) -> None:
    """Refuse an address that is neither https nor on this machine: on the way from there a file can be changed.

    Raises:
        InputError: the address is such a one.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
        raise InputError(
            f"{without_secrets(url)} is no https address; give one, for on the way from another a file can be changed."
        )


def settle(
    target: Path,
    origin: str,
    remedy: str,
    sha256: str | None = None,
    unpacked: bool = False,
    check: Check | None = None,
) -> None:
    """Rename `target.part` to `target` if its digest is right and `check` accepts it; else remove it.

    Raises:
        InputError: the content is wrong, or the disk refuses.
    """
    part, record = part_of(target), record_of(target)
    try:
        digest = check_digest(part, target, remedy, sha256, unpacked)
        try:
            if check is not None:
                check(part)
        except InputError as error:
            raise InputError(f"{origin} is not what it should be, so it was not kept: {error}") from None
    except InputError:
        part.unlink()  # more bytes cannot make a wrong file right
        raise
    finally:
        tag_of(part).unlink(missing_ok=True)
    with disk_errors(target):
        if sha256 is None and not record.exists():
            line = f"# {part.stat().st_size} bytes from {origin}\n{digest}  {target.name}\n"
            record.write_text(line, encoding="utf-8")
        part.replace(target)


def part_of(target: Path) -> Path:
    """Where a file is written until it is whole."""
    return target.with_name(target.name + ".part")


def tag_of(part: Path) -> Path:
    """Where the version that a part belongs to is kept."""
    return part.with_name(part.name + ".tag")


def record_of(target: Path) -> Path:
    """Where size and digest of a file's first download are kept."""
    return target.with_name(target.name + ".sha256")


def check_digest(path: Path, target: Path, remedy: str, sha256: str | None = None, unpacked: bool = False) -> str:
    """The digest of `path`, which is or will become `target`. It must be the known digest, or else the recorded one.

    Raises:
        InputError: it is another one.
    """
    record, expected = record_of(target), sha256
    if expected is None and record.exists():
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
        expected = next((line.partition(" ")[0] for line in lines if not line.startswith("#")), "")
    found = file_sha256(path, unpacked)
    if expected is None or found == expected:
        return found
    origin = "the known one" if sha256 else f"the one recorded in {record.name}"
    if path == target:
        remedy = f"delete {target} and run the same command again"
    elif not sha256:
        remedy += f"; or, if you want the new version, delete {record} first"
    raise InputError(f"{target.name} has the SHA-256 {found} instead of {origin}, {expected}: {remedy}")


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process in at a time: the others wait here, and then find the file.

    Raises:
        InputError: the folder of `target` cannot be made or written.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(url: str, target: Path, remedy: str) -> None:
    """Read the file into `target.part`; after a break go on, until several tries in a row bring no new byte."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined] # its HTTP client's

    part = part_of(target)
    most = fruitless = 0
    with network_errors(without_secrets(url), remedy, lambda: _kept(part)[0]), progress_bar() as bar:
        task = bar.add_task(target.name, total=None)
        while True:
            try:
                if _read_rest(url, part, bar, task):
                    return
            except HTTPError as error:
                arrived = part.stat().st_size if part.exists() else 0
                fruitless = 0 if arrived > most else fruitless + 1
                most = max(arrived, most)
                if isinstance(error, HfHubHTTPError) or fruitless > (_RETRIES if most else _RETRIES_AT_FIRST):
                    raise
                time.sleep(min(2.0**fruitless, _LONGEST_PAUSE_S))


def _read_rest(url: str, part: Path, bar: Progress, task: TaskID) -> bool:
    """Ask once for the bytes after those of `part`. Returns whether the part is whole.

    A server that has another version by now, or that knows no ranges, sends the whole file, and the part starts anew.

    Raises:
        OSError: another number of bytes arrived than the server announced, or the disk refused.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status, http_stream_backoff  # type: ignore[attr-defined] # documented

    have, version = _kept(part)
    headers = {"Accept-Encoding": "identity"}  # ranges and sizes count the file's own bytes
    headers |= {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # the client itself waits for ever
    with http_stream_backoff("GET", url, headers=headers, timeout=timeout, retry_on_exceptions=()) as response:
        if url.startswith("https:"):
            for passed in [*response.history, response]:
                check_https(str(passed.url))
        start, size = _announced(response.headers)
        goes_on = response.status_code == 206 and start == have
        if have and response.status_code in (206, 416) and not goes_on:  # 416: nothing comes after these bytes
            whole = response.status_code == 416 and size == have
            if not whole:
                tag_of(part).unlink()  # start anew
            return whole
        hf_raise_for_status(response)
        with part.open("ab" if goes_on else "wb") as file:
            if not goes_on:
                have = 0
                tag_of(part).write_text(_version(response.headers), encoding="utf-8")
            bar.update(task, completed=have, total=size)
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                bar.update(task, completed=have)
    if size not in (None, have):
        raise OSError(f"{have} bytes instead of {size}")
    return True


def _kept(part: Path) -> tuple[int, str]:
    """How many bytes of a file are there, and of which version; (0, "") if nothing tells the version."""
    tag = tag_of(part)
    version = tag.read_text(encoding="utf-8", errors="replace") if tag.is_file() else ""
    return (part.stat().st_size, version) if version and part.exists() else (0, "")


def _announced(headers: Mapping[str, str]) -> tuple[int, int | None]:
    """From where on an answer gives a file, and the size of the whole file; None if the server does not say."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is not None:
        return int(found[1] or 0), int(found[2])
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _version(headers: Mapping[str, str]) -> str:
    """What tells one version of a file from another; empty if nothing does."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")  # W/ says nothing about bytes
