"""What the scripts data/NAME/prepare.py share: fetching a file safely and telling a person what went wrong."""

import argparse
import gzip
import hashlib
import http.client
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError

_CHUNK = 1 << 20  # bytes read at once
_TIMEOUT_S = 60  # without a byte from the server


def argument_parser(script: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every script; `script` is its `__file__`, whose folder is the default target."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_root", type=Path, default=Path(script).resolve().parent, help="where the data set goes (default: here)"
    )
    return parser


def run_script(main: Callable[[], None]) -> None:
    """Run `main`, printing an `InputError` as its sentence alone; Ctrl-C keeps what has been done."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT_ERROR) from None
    except KeyboardInterrupt:
        print("\nstopped: run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def ensure_file(
    target: Path, url: str, sha256: str | None = None, unpacked: bool = False, given: Path | None = None
) -> Path:
    """`target`, fetched from `given` (a local file) or `url` unless it is there already, and checked either way.

    The file lands under its name only when it is whole and right. `sha256` is its known digest (with `unpacked`, of the
    content inside the gzip wrapping); without one, `target.sha256` records the digest the first time, for later calls.
    A download that was cut leaves `target.part`, where the next call goes on. Raises `InputError`.
    """
    if target.exists():
        _check_digest(target, target, sha256, unpacked)
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if given is not None:
            _copy(given, part)
        else:
            _download(url, part)
    except OSError as error:
        raise InputError(f"{part} cannot be written ({error}): make room, or choose another --data_root") from error
    try:
        _check_digest(part, target, sha256, unpacked)
    except InputError:
        part.unlink()  # going on with a wrong file cannot make it right
        raise
    part.replace(target)
    return target


def extract_tar(archive: Path, member: str, root: Path) -> Path:
    """The folder `member` of a tar archive as `root/member`, complete or absent; `InputError` if damaged."""
    target = root / member
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=root, prefix=".extracting-") as scratch:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")  # the filter refuses absolute paths, links out and devices
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise InputError(f"{archive} cannot be unpacked ({error}): delete it and run the script again") from error
        if not (Path(scratch) / member).is_dir():
            raise InputError(f"{archive} does not hold the folder {member}: delete it and run the script again")
        (Path(scratch) / member).rename(target)
    return target


def file_sha256(path: Path, unpacked: bool = False) -> str:
    """Hexadecimal SHA-256 of a file, or of what its gzip wrapping holds; `InputError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) if unpacked else path.open("rb") as file, progress_bar() as bar:
            task = bar.add_task(f"checking {path.name}", total=None if unpacked else path.stat().st_size)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                bar.advance(task, len(chunk))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run the script again") from error
    return digest.hexdigest()


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar that counts bytes, on the error stream, gone when done."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar


def _check_digest(path: Path, target: Path, sha256: str | None, unpacked: bool) -> None:
    """Compare the content of `path`, which is or will become `target`, with the known or recorded digest."""
    record = target.with_name(target.name + ".sha256")
    found = file_sha256(path, unpacked)
    expected = sha256 or (record.read_text().split()[0] if record.exists() else None)
    if expected is None:
        record.write_text(f"{found}  {target.name}\n")
    elif found != expected:
        origin = "the known one" if sha256 else f"the one recorded in {record.name}"
        raise InputError(
            f"{target.name} has the SHA-256 {found} instead of {origin}, {expected}: delete {target} if it "
            "is there and run the script again, or use another source with --url or --from"
        )


def _copy(given: Path, part: Path) -> None:
    if not given.is_file():
        raise InputError(f"{given} does not exist: check --from, or leave it out to download the file")
    shutil.copyfile(given, part)


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            _receive(response, url, part, have)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return  # the part was whole already: the run before ended between its last byte and the rename
        if error.code == 416:
            part.unlink()
        raise InputError(f"{url} answers {error.code} {error.reason}: {_other_ways()}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise InputError(f"{url} cannot be fetched ({error}): {_other_ways()}") from error


def _receive(response: http.client.HTTPResponse, url: str, part: Path, have: int) -> None:
    resumed = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    goes_on = response.status == 206 and resumed is not None and int(resumed[1]) == have
    start = have if goes_on else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    with part.open("ab" if goes_on else "wb") as file, progress_bar() as bar:
        task: TaskID = bar.add_task(part.name.removesuffix(".part"), total=total, completed=start)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.advance(task, len(chunk))
    if total is not None and part.stat().st_size < total:
        raise InputError(f"{url} ended after {part.stat().st_size} of {total} bytes: run the script again to go on")


def _other_ways() -> str:
    return "try again later, or give another address with --url or a copy you have with --from"
