"""Files from the network: whole or not at all, going on after a cut, checked, and fetched by one process at a time.

    NAME           appears when it is whole and right
    NAME.part      what has arrived so far; a later call goes on from its end
    NAME.part.tag  which version of the file the part is of (the server's ETag), so that no two are joined
    NAME.sha256    size, origin and digest as of the first download; `sha256sum --check` reads it

The transfer itself, with its retries and its bar, is huggingface_hub's.
"""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import network_errors, without_secrets
from vdvae_lr.files.paths import cannot_be_read

_CHUNK = 1 << 20  # bytes read at once
_NO_HEAD = (403, 405, 501)  # servers, and signed addresses, that answer GET alone
_RETRIES = 2  # where nothing comes at all; while bytes flow, the client is more patient
_HOST = re.compile(r"^[\w.:-]+$")
_LONGEST, _LONGEST_SHOWN = 8_000, 200  # characters of an address; servers take no more
_HERE = ("127.0.0.1", "localhost", "::1")
_WHOLE = {"Accept-Encoding": "identity"}  # sizes and ranges count the file's own bytes


Check = Callable[[Path], object]
"""Reads a file, and raises InputError where it is of no use."""


def fetch(
    url: str, target: Path, remedy: str, sha256: str | None = None, unpacked: bool = False, check: Check | None = None
) -> Path:
    """`target`, downloaded from `url` unless it is there already, and checked either way.

    Args:
        url: http or https.
        target: where the file shall be; its folder is made.
        remedy: what a person can do where the address does not help, as the end of a sentence.
        sha256: the known digest; without one the digest is recorded at the first download and compared later.
        unpacked: the digest is of the content inside the gzip wrapping.
        check: asked once, of what has arrived: a page that says "down for maintenance" is never taken for the file.

    Raises:
        InputError: the address, the network, the disk or the content fails; what has arrived stays for the next call.
    """
    if not _is_address(url):
        raise InputError(f"{without_secrets(url)[:_LONGEST_SHOWN]!r} is no address like https://HOST/FILE: {remedy}")
    with disk_errors(target):
        there = target.exists()  # a folder that cannot be written to may well hold the file
    if not there:
        with _alone(target):
            if not target.exists():
                _download(url, target, remedy)
                settle(target, without_secrets(url), remedy, sha256, unpacked, check)
                return target
    check_digest(target, target, remedy, sha256, unpacked)
    return target


def _is_address(url: str) -> bool:
    """Before the client sees it, whose error for a broken address is called differently by each of its versions."""
    if len(url) > _LONGEST or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(_HOST.match(parts.hostname or "")) and parts.port != 0
    except ValueError:  # of brackets, or of the port
        return False


def check_https(url: str) -> None:
    """Refuse an address on the way from which a file could be changed: any but https, or on this machine.

    Raises:
        InputError: it is another one.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _HERE):
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
    """Give `target.part` its name once its digest and the check allow it; else remove it (raises InputError)."""
    part = part_of(target)
    try:
        digest = check_digest(part, target, remedy, sha256, unpacked)
        if check is not None:
            with _naming(origin):
                check(part)
    except InputError:
        part.unlink()  # going on with a wrong file cannot make it right
        raise
    finally:
        tag_of(part).unlink(missing_ok=True)
    with disk_errors(target):
        if sha256 is None and not record_of(target).exists():
            record_of(target).write_text(
                f"# {part.stat().st_size} bytes from {origin}\n{digest}  {target.name}\n", encoding="utf-8"
            )
        part.replace(target)


@contextmanager
def _naming(origin: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{origin} is not what it should be, so it was not kept: {error}") from None


def part_of(target: Path) -> Path:
    """Where a file is written until it is whole."""
    return target.with_name(target.name + ".part")


def tag_of(part: Path) -> Path:
    """Where it is kept which version of a file a part is of."""
    return part.with_name(part.name + ".tag")


def record_of(target: Path) -> Path:
    """Where the size and digest of a file's first download are kept."""
    return target.with_name(target.name + ".sha256")


def check_digest(path: Path, target: Path, remedy: str, sha256: str | None = None, unpacked: bool = False) -> str:
    """The digest of `path`, which is or will become `target`, if it is the known one, or else the recorded one.

    Raises:
        InputError: it is another one.
    """
    record = record_of(target)
    expected = sha256 or (_recorded_digest(record) if record.exists() else None)
    found = file_sha256(path, unpacked)
    if expected is not None and found != expected:
        origin = "the known one" if sha256 else f"the one recorded in {record.name}"
        there = f"delete {target} and run the same command again" if path == target else remedy
        if path != target and not sha256:
            there += f"; or, where a new version is what you want, delete {record} first"
        raise InputError(f"{target.name} has the SHA-256 {found} instead of {origin}, {expected}: {there}")
    return found


def _recorded_digest(record: Path) -> str:
    lines = [
        line for line in record.read_text(encoding="utf-8", errors="replace").splitlines() if not line.startswith("#")
    ]
    return lines[0].split()[0] if lines and lines[0].split() else ""


def file_sha256(path: Path, unpacked: bool = False, shown: bool = True) -> str:
    """Hexadecimal SHA-256 of a file.

    Args:
        path: of the file.
        unpacked: of what its gzip wrapping holds instead.
        shown: with a progress bar; False beside work that has a display of its own.

    Raises:
        InputError: the file cannot be read, or its wrapping is damaged.
    """
    digest = hashlib.sha256()
    try:
        with gzip.open(path) if unpacked else path.open("rb") as file, progress_bar(shown) as bar:
            task = bar.add_task(f"checking {path.name}", total=None if unpacked else path.stat().st_size)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                bar.advance(task, len(chunk))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run the same command again") from error
    except OSError as error:
        raise cannot_be_read(path, error) from error
    return digest.hexdigest()


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Progress]:
    """A bar that counts bytes, on the error stream where that is a terminal, gone when done; none unless `shown`."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        yield bar


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Other processes that want the same file wait here, and then find it."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """What writing `target` can meet, as one sentence (raises InputError)."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}): free space or choose another folder"
        ) from error


def _download(url: str, target: Path, remedy: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined] # its HTTP client's

    part = part_of(target)
    shown = without_secrets(url)
    with network_errors(shown, remedy, lambda: _arrived(part)):
        size, tag = _described(url)
        have = _resumable(part, tag, size)
        fruitless = 0
        while True:
            try:
                with _Part(target, have, f"{shown} starts over after every cut: {remedy}") as file:
                    tag_of(part).write_text(tag, encoding="utf-8")
                    _transfer(url, file, have, size, tag, target.name)
                return
            except HTTPError as error:  # the client itself does not go on after a reset
                before, have = have, _arrived(part)
                fruitless = fruitless + 1 if have <= before else 0
                if isinstance(error, HfHubHTTPError) or fruitless > _RETRIES:
                    raise


class _Part(io.BufferedWriter):
    """What has arrived of a file; raises InputError where a server without ranges would make the client go on for ever.

    Args:
        target: the file it is a part of.
        have: bytes to keep.
        hopeless: what to say of such a server.
    """

    def __init__(self, target: Path, have: int, hopeless: str) -> None:
        with disk_errors(target):
            super().__init__(io.FileIO(part_of(target), "ab" if have else "wb"))
        self._hopeless = hopeless
        self._restarts = 0

    def truncate(self, size: int | None = None) -> int:
        """Called by the client to start over."""
        self._restarts += 1
        if self._restarts > _RETRIES:
            raise InputError(self._hopeless)
        return super().truncate(size)


def _transfer(url: str, file: io.BufferedWriter, have: int, size: int | None, tag: str, name: str) -> None:
    """Get what is missing after `have` bytes."""
    from huggingface_hub.file_download import http_get

    headers = _WHOLE | ({"If-Range": tag} if tag else {})
    http_get(url, file, resume_size=have, headers=headers, expected_size=size, displayed_filename=name)


def _described(url: str) -> tuple[int | None, str]:
    """Size and version of a file as its server states them; None and "" where it does not."""
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status, http_backoff  # type: ignore[attr-defined] # documented

    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # the client's own is none at all
    response = http_backoff("HEAD", url, max_retries=_RETRIES, headers=_WHOLE, timeout=timeout, follow_redirects=True)
    if url.startswith("https:"):
        for passed in [*response.history, response]:
            check_https(str(passed.url))
    if response.status_code in _NO_HEAD:
        return None, ""
    hf_raise_for_status(response)
    length, tag = response.headers.get("Content-Length"), response.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):  # a weak tag says nothing about bytes
        tag = response.headers.get("Last-Modified", "")
    return int(length) if length else None, tag


def _resumable(part: Path, tag: str, size: int | None) -> int:
    """Bytes of `part` to go on from: none of another version, of one that nobody can tell, or of a longer file."""
    have = _arrived(part)
    kept = tag_of(part)
    same = bool(tag) and kept.is_file() and kept.read_text(encoding="utf-8", errors="replace") == tag
    return have if same and (size is None or have <= size) else 0


def _arrived(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
