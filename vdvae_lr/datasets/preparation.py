"""What the scripts data/NAME/prepare.py share: fetching and unpacking files safely, and saying what went wrong."""

import argparse
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from vdvae_lr.datasets.array_files import DataFileError
from vdvae_lr.errors import EXIT_INTERRUPTED, InputError
from vdvae_lr.files.digests import file_digest
from vdvae_lr.files.download import fetch, part_of, settle, tag_of
from vdvae_lr.files.paths import exists, is_file, is_folder, path_of
from vdvae_lr.files.whole_file import disk_errors
from vdvae_lr.processes.failures import ends_with_exit_code, take_debug_flag

_OTHER_WAYS = "try again later, or give another address with --url or a copy you have with --from"


def argument_parser(script: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every script. `script` is its `__file__`: the data set goes into that folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(script).resolve().parent
    parser.add_argument("--data_root", type=path_of, default=here, help="where the data set goes (default: here)")
    return parser


def run_script(main: Callable[[], None]) -> None:
    """Run `main`; if it fails, end the program with the right exit code. Ctrl-C keeps what has been done so far."""

    @ends_with_exit_code
    def script() -> int:
        try:
            main()
        except KeyboardInterrupt:
            print("\nstopped: run the same command again to go on", file=sys.stderr)
            return EXIT_INTERRUPTED
        return 0

    sys.argv[1:] = take_debug_flag(sys.argv[1:])
    if code := script():
        raise SystemExit(code)


@contextmanager
def advising_a_fresh_copy() -> Iterator[None]:
    """Add to every `DataFileError` about a file that a person has fetched what to do about it (raises InputError)."""
    try:
        yield
    except DataFileError as error:
        raise InputError(f"{error}: fetch it again from the data set's own site") from error


def ensure_file(
    target: Path,
    url: str,
    sha256: str | None = None,
    unpacked: bool = False,
    given: Path | None = None,
    md5: str | None = None,
) -> Path:
    """Return `target`, fetched from `given` (a local file) or `url` if it is not there. Its content is always checked.

    The file gets its name only when it is whole and right. A download that was cut leaves `target.part`, where the next
    call goes on. `sha256` is the known digest (with `unpacked`, of the content inside the gzip wrapping). Without one,
    `target.sha256` records the digest the first time. `md5` is the known MD5 of the file, for data sets that publish no
    better digest. Raises InputError if the file cannot be fetched or is wrong.
    """
    check = partial(_check_md5, md5, "it", _OTHER_WAYS) if md5 else None
    if md5 and exists(target):
        _check_md5(md5, target.name, f"delete {target} and run the same command again", target)
    if given is None or exists(target):
        return fetch(url, target, _OTHER_WAYS, sha256, unpacked, check)
    if not is_file(given):
        raise InputError(f"{given} does not exist: check --from, or leave it out to download the file")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        tag_of(part_of(target)).unlink(missing_ok=True)  # so that no download goes on from half a copy
        shutil.copyfile(given, part_of(target))
    settle(target, str(given), _OTHER_WAYS, sha256, unpacked, check)
    return target


def _check_md5(md5: str, subject: str, remedy: str, path: Path) -> None:
    found = file_digest(path, "md5")
    if found != md5:
        raise InputError(f"{subject} has the MD5 {found} instead of the published one, {md5}: {remedy}")


def extract_tar(archive: Path, member: str, root: Path) -> Path:
    """Unpack the folder `member` of a tar archive as `root/member`, complete or not at all (raises InputError)."""
    target = root / member
    if is_folder(target):
        return target
    with tempfile.TemporaryDirectory(dir=root, prefix=".extracting-") as scratch:
        try:
            with tarfile.open(archive) as tar:
                _extract_files(tar, member, Path(scratch))
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise InputError(f"{archive} cannot be unpacked ({error}): delete it and run the script again") from error
        if not (Path(scratch) / member).is_dir():
            raise InputError(f"{archive} does not hold the folder {member}: delete it and run the script again")
        (Path(scratch) / member).rename(target)
    return target


def _extract_files(tar: tarfile.TarFile, member: str, folder: Path) -> None:
    """Unpack only plain files below `member`, so that no name and no link leads out of `folder`.

    `extractall` can do this with a filter, but Python before 3.11.4 (Debian 12 has 3.11.2) lacks filters.
    """
    for entry in tar:
        name = PurePosixPath(entry.name)
        packed = tar.extractfile(entry) if entry.isfile() else None
        if packed is None or ".." in name.parts or PurePosixPath(member) not in name.parents:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with packed, (folder / name).open("wb") as file:
            shutil.copyfileobj(packed, file)
