"""Downsampled ImageNet, in any of the forms it is handed out in, to one `.npy` file (N, S, S, 3) uint8.

The forms: folders, zip or tar archives of PNG files, of pickled batches, or of npz batches.
"""

import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from vdvae_lr.datasets.arrays import check_image_array
from vdvae_lr.datasets.decoding import SUFFIXES, UnreadableImageError, decode_image
from vdvae_lr.datasets.restricted_pickle import channels_last, load_arrays
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import is_file, is_folder
from vdvae_lr.files.progress_bar import progress_bar

_HEADER_BYTES = 128  # numpy pads a header to a multiple of 64 bytes; with room for a growing N these shapes take 128
_READ_ERRORS = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
_REMEDY = "fetch it again from the data set's own site"


@dataclass(frozen=True, slots=True)  # there may be a million of them
class Member:
    """One file inside a folder or archive, with a way to read it whole."""

    name: str
    read: Callable[[], bytes]

    @property
    def is_validation(self) -> bool:
        """Whether `val` starts a word of the path, as in `Imagenet32_val` and `valid_64x64`."""
        return re.search(r"(^|[/_])val", self.name, re.IGNORECASE) is not None


def convert_imagenet(given: Sequence[Path], image_size: int, root: Path) -> dict[Path, int]:
    """Make `imagenetS-train.npy` and `imagenetS-valid.npy` in `root`, each unless it is there; their numbers of images.

    Raises `InputError` when `given` lacks one of the parts or holds damaged or foreign files.
    """
    written = {}
    with ExitStack() as archives:
        parts = members(given, archives)
        for split in ("train", "valid"):
            target = root / f"imagenet{image_size}-{split}.npy"
            if not target.exists():
                chosen = [member for member in parts if member.is_validation == (split == "valid")]
                if not chosen:
                    raise InputError(
                        f"{', '.join(map(str, given))} holds no {split} images (validation has 'val' in its name): "
                        "give the archives of both parts with --from"
                    )
                convert(chosen, image_size, target)
            written[target] = len(check_image_array(target, image_size, f"imagenet{image_size}"))
    return written


def members(given: Sequence[Path], archives: ExitStack) -> list[Member]:
    """The data files in folders and archives, in natural order of their names (batch 2 before batch 10).

    They can be read until `archives` closes. Raises `InputError` when there is none, or an archive is damaged.
    """
    try:
        found = [member for path in given for member in _members_of(path, archives)]
    except _READ_ERRORS as error:
        raise InputError(f"{', '.join(map(str, given))} cannot be read ({error}): {_REMEDY}") from error
    wanted = [member for member in found if _kind(member.name) is not None]
    if not wanted:
        raise InputError(f"{', '.join(map(str, given))} holds neither PNG files nor batches: {_REMEDY}")
    return sorted(wanted, key=lambda member: _natural(member.name))


def convert(parts: Sequence[Member], image_size: int, target: Path) -> None:
    """Write the images of `parts` to `target`, going on where an interrupted run left `target.part`.

    The pixels go behind an empty header, which is written at the end, when N is known. Raises `InputError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    row_bytes = 3 * image_size**2
    done = max(0, part.stat().st_size - _HEADER_BYTES) // row_bytes if part.exists() else 0
    try:
        with part.open("r+b" if part.exists() else "w+b") as file, progress_bar() as bar:
            task = bar.add_task(target.name, total=None, completed=done * row_bytes)
            file.truncate(_HEADER_BYTES + done * row_bytes)
            file.seek(0, io.SEEK_END)
            for images in _images(parts, image_size, skip=done):
                file.write(images.tobytes())
                done += len(images)
                bar.advance(task, images.nbytes)
            _write_header(file, (done, image_size, image_size, 3))
    except OSError as error:
        raise InputError(f"{part} cannot be written ({error}): make room, or choose another --data_root") from error
    part.replace(target)


def _images(parts: Sequence[Member], image_size: int, skip: int) -> Iterator[Pixels]:
    """Blocks (n, S, S, 3) of all parts in turn, without the first `skip` images."""
    for member in parts:
        if _kind(member.name) == "image" and skip:
            skip -= 1  # one file is one image: no need to decode it to count it
            continue
        block = _decode(member, image_size)
        yield block[skip:]
        skip = max(0, skip - len(block))


def _decode(member: Member, image_size: int) -> Pixels:
    try:
        content = io.BytesIO(member.read())
    except _READ_ERRORS as error:
        raise InputError(f"{member.name} cannot be read ({error}): {_REMEDY}") from error
    if _kind(member.name) == "image":
        try:
            return decode_image(content, image_size, 3)[None]
        except UnreadableImageError as error:
            raise InputError(f"{member.name} cannot be read as an image ({error}): {_REMEDY}") from error
    if _kind(member.name) == "npz":
        try:
            with np.load(content, allow_pickle=False) as arrays:
                data: Any = arrays["data"]
        except (ValueError, KeyError, *_READ_ERRORS) as error:
            raise InputError(f"{member.name} is no batch of arrays ({error}): {_REMEDY}") from error
    else:
        data = load_arrays(content, member.name, _REMEDY).get("data")
    return channels_last(data, image_size, member.name, _REMEDY)


def _kind(name: str) -> str | None:
    """`image`, `npz`, `pickle` (batches have no suffix), or None for a file that is no data."""
    path = PurePosixPath(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return None
    if path.suffix.lower() in SUFFIXES:
        return "image"
    if path.suffix == ".npz":
        return "npz"
    return "pickle" if re.fullmatch(r"(train_|val_)data(_batch_\d+)?", path.name) else None


def _members_of(path: Path, archives: ExitStack) -> Iterator[Member]:
    """Everything in one folder or archive, or one single file; names start with the name of `path` itself."""
    if is_folder(path):
        for file in path.rglob("*"):
            if file.is_file():
                yield Member(f"{path.resolve().name}/{file.relative_to(path).as_posix()}", file.read_bytes)
    elif not is_file(path):
        raise InputError(f"{path} does not exist: give the downloaded archive or folder with --from")
    elif path.suffix != ".npz" and zipfile.is_zipfile(path):
        archive = archives.enter_context(zipfile.ZipFile(path))
        for info in archive.infolist():
            yield Member(f"{path.stem}/{info.filename}", partial(archive.read, info))
    elif tarfile.is_tarfile(path):
        tar = archives.enter_context(tarfile.open(path))  # noqa: SIM115 (`archives` closes it)
        for entry in tar:
            if entry.isfile():
                yield Member(f"{path.stem}/{entry.name}", partial(_tar_bytes, tar, entry))
    else:
        yield Member(path.name, path.read_bytes)


def _tar_bytes(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    return file.read() if file is not None else b""


def _natural(name: str) -> list[str | int]:
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    if len(header.getvalue()) != _HEADER_BYTES:
        raise RuntimeError(f"numpy wrote a header of {len(header.getvalue())} bytes instead of {_HEADER_BYTES}")
    file.seek(0)
    file.write(header.getvalue())
