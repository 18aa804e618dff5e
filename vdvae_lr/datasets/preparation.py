"""What the scripts data/NAME/prepare.py share: fetching a file safely and telling a person what went wrong."""

import argparse
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from vdvae_lr.errors import InputError
from vdvae_lr.files.download import fetch, part_of, settle, tag_of
from vdvae_lr.files.paths import exists, is_file, is_folder, path_of
from vdvae_lr.files.whole_file import disk_errors
from vdvae_lr.processes.failures import report, take_debug_flag
from vdvae_lr.processes.streams import mend_streams

_OTHER_WAYS = "try again later, or give another address with --url or a copy you have with --from"


def argument_parser(script: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every script; `script` is its `__file__`, whose folder is the default target."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(script).resolve().parent
    parser.add_argument("--data_root", type=path_of, default=here, help="where the data set goes (default: here)")
    return parser


def run_script(main: Callable[[], None]) -> None:
    """Run `main`; an error ends it with the sentence and the code of `failures.py`. Ctrl-C keeps what has been done."""
    mend_streams()
    sys.argv[1:] = take_debug_flag(sys.argv[1:])
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nstopped: run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        code = report(error)
        if code is None:
            raise
        raise SystemExit(code) from None


def ensure_file(
    target: Path, url: str, sha256: str | None = None, unpacked: bool = False, given: Path | None = None
) -> Path:
    """`target`, fetched from `given` (a local file) or `url` unless it is there already, and checked either way.

    The file lands under its name only when it is whole and right. `sha256` is its known digest (with `unpacked`, of the
    content inside the gzip wrapping); without one, `target.sha256` records the digest the first time, for later calls.
    A download that was cut leaves `target.part`, where the next call goes on. Raises `InputError`.
    """
    if given is None or exists(target):
        return fetch(url, target, _OTHER_WAYS, sha256, unpacked)
    if not is_file(given):
        raise InputError(f"{given} does not exist: check --from, or leave it out to download the file")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        tag_of(part_of(target)).unlink(missing_ok=True)  # no download goes on from half a copy
        shutil.copyfile(given, part_of(target))
    settle(target, str(given), _OTHER_WAYS, sha256, unpacked)
    return target


def extract_tar(archive: Path, member: str, root: Path) -> Path:
    """The files in folder `member` of a tar archive as `root/member`, complete or absent; `InputError` if damaged."""
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
    """Only plain files below `member`, so that no name and no link leads elsewhere.

    `extractall` would want a filter for that, which Python before 3.11.4, Debian 12's among them, does not have.
    """
    for entry in tar:
        name = PurePosixPath(entry.name)
        source = tar.extractfile(entry) if entry.isfile() else None
        if source is None or ".." in name.parts or PurePosixPath(member) not in name.parents:
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)
