"""Images inside a zip archive from elsewhere, read in place and one at a time: nothing is extracted.

An archive may be cut, damaged or encrypted, or made to fill the memory. `DataFileError` names the archive and the file.
"""

import io
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from vdvae_lr.datasets.array_files import DataFileError, existing
from vdvae_lr.datasets.decoding import UnreadableImageError
from vdvae_lr.files.paths import UnreadableError, cannot_be_read

_SLACK = 1 << 16  # bytes that a file may hold beside its pixels
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks other kinds without a limit
_ENCRYPTED = 1  # bit of an entry's flags


@dataclass(frozen=True)
class ImageKind:
    """What every image of an archive is."""

    format: str
    """Pillow's name of the file format."""
    mode: str
    """Pillow's name of the pixels that are wanted: L or RGB."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def opened_zip(path: Path) -> zipfile.ZipFile:
    """The archive at `path`, open for reading (raises DataFileError if it is none)."""
    try:
        return zipfile.ZipFile(existing(path))
    except (DataFileError, UnreadableError):
        raise
    except Exception as error:  # a damaged table of contents can raise anything
        if isinstance(error, OSError) and error.errno:
            raise cannot_be_read(path, error) from None
        raise DataFileError(f"{path} is cut short or not a zip archive ({error})") from error


def files_of(archive: zipfile.ZipFile, suffix: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files with a suffix, by path; hidden ones, and paths that lead out of the archive, are left out."""
    entries = {PurePosixPath(info.filename): info for info in archive.infolist() if not info.is_dir()}
    return {
        path: info
        for path, info in entries.items()
        if path.suffix == suffix and not any(part.startswith((".", "/", "__MACOSX")) for part in path.parts)
    }


def read_image(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kind: ImageKind) -> Image.Image:
    """Decode one file of the archive in the mode of `kind` (raises DataFileError if it is no such image)."""
    name = f"{archive.filename}: {info.filename}"
    most = 3 * kind.width * kind.height + _SLACK
    try:
        content = content_of(archive, info, most, f"image of {kind.width}×{kind.height}")
    except UnreadableImageError as error:
        raise DataFileError(f"{name} cannot be read ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, and about sizes, which are checked below
            with Image.open(io.BytesIO(content), formats=(kind.format,)) as image:
                size = image.size
                if size == (kind.width, kind.height):
                    return image.convert(kind.mode)
    except UnidentifiedImageError as error:  # its message names an object of Python
        raise DataFileError(f"{name} is no {kind.format} image") from error
    except Exception as error:  # damaged images raise errors of many kinds
        raise DataFileError(f"{name} cannot be read ({error})") from error
    raise DataFileError(f"{name} has {size[0]}×{size[1]} pixels instead of {kind.width}×{kind.height}")


def content_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, what: str) -> bytes:
    """Unpack one file of the archive into memory.

    Args:
        archive: the open archive.
        info: the file's entry.
        most: bytes; a file that is longer is not unpacked.
        what: what the file should be, for the message about a longer one.

    Raises:
        UnreadableImageError: the file is too long, encrypted, damaged, or packed in an unusual way. Its cause is an
            OSError with a number if the system refused.
    """
    if info.file_size > most:
        raise UnreadableImageError(
            f"it would unpack to {info.file_size:,} bytes, and no {what} needs more than {most:,}"
        )
    if info.flag_bits & _ENCRYPTED:
        raise UnreadableImageError("it is encrypted")
    if info.compress_type not in _BOUNDED:
        raise UnreadableImageError("it is packed in a way that zip archives of images do not use")
    try:
        with archive.open(info) as file:
            return file.read(max(1, info.file_size))  # without a number up to 2 GB are unpacked before they are counted
    except Exception as error:  # damaged archives raise errors of many kinds
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableImageError(reason or str(error) or type(error).__name__) from error
