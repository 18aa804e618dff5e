"""Convert downsampled ImageNet to one `.npy` file (N, S, S, 3) uint8 for each part.

It is handed out in several forms: folders, zip or tar archives of PNG files, of pickled batches, or of npz batches.
"""

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from vdvae_lr.datasets.array_files import DataFileError, channels_last, load_arrays, map_npy
from vdvae_lr.datasets.catalogue import naming_the_remedy
from vdvae_lr.datasets.decoding import SUFFIXES, UnreadableImageError, decode_image
from vdvae_lr.datasets.preparation import advising_a_fresh_copy, argument_parser
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.errors import InputError
from vdvae_lr.files.download import part_of
from vdvae_lr.files.paths import is_file, is_folder, path_of
from vdvae_lr.files.progress_bar import progress_bar
from vdvae_lr.files.whole_file import disk_errors

_HEADER_BYTES = 128  # numpy pads a header to a multiple of 64 bytes and leaves room for a growing N
_READ_ERRORS = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


Member = tuple[str, Callable[[], bytes]]
"""One file inside a folder or archive: its name, and a function that reads it whole."""


def main(script: str, description: str | None, image_size: int) -> None:
    """The program of data/imagenet32/prepare.py and data/imagenet64/prepare.py."""
    parser = argument_parser(script, description)
    parser.add_argument("--from", dest="given", type=path_of, nargs="+", required=True, help="archives or folders")
    options = parser.parse_args()
    for path, n_images in convert_imagenet(options.given, image_size, options.data_root).items():
        print(f"ready: {path}, {n_images:,} images")


def convert_imagenet(given: Sequence[Path], image_size: int, root: Path) -> dict[Path, int]:
    """Make `imagenetS-train.npy` and `imagenetS-valid.npy` in `root`, unless they exist; returns their image counts.

    Raises InputError if `given` lacks one of the parts, or holds damaged or foreign files.
    """
    written = {}
    with ExitStack() as archives, advising_a_fresh_copy():
        parts = members(given, archives)
        for split in ("train", "valid"):
            target = root / f"imagenet{image_size}-{split}.npy"
            if not target.exists():
                chosen = [member for member in parts if _is_validation(member[0]) == (split == "valid")]
                if not chosen:
                    raise InputError(
                        f"{', '.join(map(str, given))} holds no {split} images (validation has 'val' in its name): "
                        "give the archives of both parts with --from"
                    )
                convert(chosen, image_size, target)
            with naming_the_remedy(f"imagenet{image_size}"):
                written[target] = len(map_npy(target, image_size))
    return written


def members(given: Sequence[Path], archives: ExitStack) -> list[Member]:
    """The data files in folders and archives, in natural order of their names (batch 2 before batch 10).

    They can be read until `archives` closes. Raises DataFileError if there are none, or an archive is damaged.
    """
    names = ", ".join(map(str, given))
    try:
        found = [member for path in given for member in _members_of(path, archives)]
    except _READ_ERRORS as error:
        raise DataFileError(f"{names} cannot be read ({error})") from error
    wanted = [member for member in found if _kind(member[0]) is not None]
    if not wanted:
        raise DataFileError(f"{names} holds neither PNG files nor batches")
    return sorted(wanted, key=lambda member: _natural(member[0]))


def convert(parts: Sequence[Member], image_size: int, target: Path) -> None:
    """Write the images of `parts` to `target`; goes on where an interrupted call left `target.part`.

    The pixels go behind an empty header, which is filled at the end, when N is known. Raises DataFileError if a
    part cannot be read, and InputError if the file cannot be written.
    """
    part = part_of(target)
    row_bytes = 3 * image_size**2
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        done = max(0, part.stat().st_size - _HEADER_BYTES) // row_bytes if part.exists() else 0
        with part.open("r+b" if part.exists() else "w+b") as file, progress_bar() as bar:
            task = bar.add_task(target.name, total=None, completed=done * row_bytes)
            file.truncate(_HEADER_BYTES + done * row_bytes)
            file.seek(0, io.SEEK_END)
            for images in _images(parts, image_size, skip=done):
                file.write(images.tobytes())
                done += len(images)
                bar.advance(task, images.nbytes)
            _write_header(file, (done, image_size, image_size, 3))
        part.replace(target)


def _images(parts: Sequence[Member], image_size: int, skip: int) -> Iterator[Pixels]:
    """Blocks (n, S, S, 3) of all parts in turn, without the first `skip` images."""
    for name, read in parts:
        if _kind(name) == "image" and skip:
            skip -= 1  # one file is one image, so it need not be decoded
            continue
        block = _decode(name, read, image_size)
        yield block[skip:]
        skip = max(0, skip - len(block))


def _decode(name: str, read: Callable[[], bytes], image_size: int) -> Pixels:
    try:
        content = io.BytesIO(read())
    except _READ_ERRORS as error:
        raise DataFileError(f"{name} cannot be read ({error})") from error
    if _kind(name) == "image":
        try:
            return decode_image(content, image_size, 3)[None]
        except UnreadableImageError as error:
            raise DataFileError(f"{name} cannot be read as an image ({error})") from error
    if _kind(name) == "npz":
        try:
            with np.load(content, allow_pickle=False) as arrays:
                data: Any = arrays["data"]
        except (ValueError, KeyError, *_READ_ERRORS) as error:
            raise DataFileError(f"{name} is no batch of arrays ({error})") from error
    else:
        data = load_arrays(content, name).get("data")
    return channels_last(data, image_size, name)


def _is_validation(name: str) -> bool:
    """Whether a word of the path starts with `val`, as in `Imagenet32_val` and `valid_64x64`."""
    return re.search(r"(^|[/_])val", name, re.IGNORECASE) is not None


def _kind(name: str) -> str | None:
    """`image`, `npz`, `pickle` (such batches have no suffix), or None for a file that is no data."""
    path = PurePosixPath(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return None
    if path.suffix.lower() in SUFFIXES:
        return "image"
    if path.suffix == ".npz":
        return "npz"
    return "pickle" if re.fullmatch(r"(train_|val_)data(_batch_\d+)?", path.name) else None


def _members_of(path: Path, archives: ExitStack) -> Iterator[Member]:
    """Everything in a folder or archive, or a single file; each name starts with the name of `path`."""
    if is_folder(path):
        for file in path.rglob("*"):
            if file.is_file():
                yield f"{path.resolve().name}/{file.relative_to(path).as_posix()}", file.read_bytes
    elif not is_file(path):
        raise InputError(f"{path} does not exist: give the downloaded archive or folder with --from")
    elif path.suffix != ".npz" and zipfile.is_zipfile(path):
        archive = archives.enter_context(zipfile.ZipFile(path))
        for info in archive.infolist():
            yield f"{path.stem}/{info.filename}", partial(archive.read, info)
    elif tarfile.is_tarfile(path):
        tar = archives.enter_context(tarfile.open(path))  # noqa: SIM115 (`archives` closes it)
        for entry in tar:
            if entry.isfile():
                yield f"{path.stem}/{entry.name}", partial(_tar_bytes, tar, entry)
    else:
        yield path.name, path.read_bytes


def _tar_bytes(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    return file.read() if file is not None else b""


def _natural(name: str) -> list[str | int]:
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    if len(header.getvalue()) != _HEADER_BYTES:
        raise RuntimeError(f"numpy wrote a header of {len(header.getvalue())} bytes instead of {_HEADER_BYTES}")
    file.seek(0)
    file.write(header.getvalue())
