"""Convert CelebA's aligned faces to one `.npy` file (N, 64, 64, 3) uint8 for each split of its owners.

The archive is read in place. Each file gets its name only when it is whole; one that is there is not made again.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vdvae_lr.datasets.array_files import DataFileError, map_npy, write_npy
from vdvae_lr.datasets.catalogue import CELEBA, CELEBA_SIDE, naming_the_remedy, split_files
from vdvae_lr.datasets.inventory import PARTS
from vdvae_lr.datasets.preparation import advising_a_fresh_copy
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.datasets.zipped_images import ImageKind, files_of, opened_zip, read_image
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import cannot_be_read, exists, is_file
from vdvae_lr.files.progress_bar import progress_bar

ARCHIVE, PARTITION = "img_align_celeba.zip", "list_eval_partition.txt"
_FACE = ImageKind("JPEG", "RGB", 178, 218)
_CENTRE = (15, 35, 163, 183)  # left, top, right, bottom of the central 148×148, which is usual for CelebA
_LINE = re.compile(r"([\w-]+\.jpg)\s+([012])")
_LARGEST_LIST = 1 << 25  # bytes; the official list has 2.8 million


def convert_celeba(given: Path, root: Path) -> dict[Path, int]:
    """Make the files of the three splits in `root` from the folder that holds the archive and the list of splits.

    Returns the number of images in each file. Raises InputError if one of the two is missing, damaged or incomplete, or
    if a file that is there has another number of images than the list.
    """
    for path in (given / ARCHIVE, given / PARTITION):
        if not is_file(path):
            raise InputError(f"{path} does not exist: name the folder of {ARCHIVE} and {PARTITION} with --from")
    targets = split_files(root, CELEBA)
    with advising_a_fresh_copy():
        names = read_partition(given / PARTITION)
        with opened_zip(given / ARCHIVE) as archive:
            entries = _entries(archive, [name for part in names for name in part])
            for target, part in zip(targets, names, strict=True):
                if not exists(target):
                    shape = (len(part), CELEBA_SIDE, CELEBA_SIDE, 3)
                    write_npy(target, shape, _faces(archive, [entries[name] for name in part], target.name))
    with naming_the_remedy("celeba"):
        written = {target: len(map_npy(target, CELEBA_SIDE)) for target in targets}
        for (target, found), part in zip(written.items(), names, strict=True):
            if found != len(part):
                raise DataFileError(f"{target} holds {found:,} images, but {PARTITION} names {len(part):,} for it")
    return written


def read_partition(path: Path) -> list[list[str]]:
    """The names of the training, validation and test images, from lines such as `000001.jpg 0`.

    Raises:
        DataFileError: a line is of another form, a name comes twice, or a split is empty.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_LIST + 1)
    except OSError as error:
        raise cannot_be_read(path, error) from None
    if len(content) > _LARGEST_LIST:
        raise DataFileError(f"{path} is longer than {_LARGEST_LIST:,} bytes")
    split_of: dict[str, int] = {}
    for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        if match is None and line.strip():
            raise DataFileError(f"{path}, line {number}: '{line[:60]}' is not an image's name and 0, 1 or 2")
        if match is not None:
            if match[1] in split_of:
                raise DataFileError(f"{path}, line {number}: {match[1]} comes twice")
            split_of[match[1]] = int(match[2])
    names: list[list[str]] = [[name for name, split in split_of.items() if split == number] for number in range(3)]
    for part, found in zip(PARTS, names, strict=True):
        if not found:
            raise DataFileError(f"{path} names no {part} images")
    return names


def _entries(archive: zipfile.ZipFile, names: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by name, without their folders; raises DataFileError if one of `names` is not there."""
    entries = {path.name: info for path, info in files_of(archive, ".jpg").items()}
    missing = [name for name in names if name not in entries]
    if missing:
        raise DataFileError(
            f"{archive.filename} lacks {len(missing):,} of the {len(names):,} images that {PARTITION} names, the first "
            f"of them {min(missing)}"
        )
    return entries


def _faces(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], shown: str) -> Iterator[Pixels]:
    """Central squares (64, 64, 3), resized with antialiasing; a bar called `shown` counts their bytes."""
    size = (CELEBA_SIDE, CELEBA_SIDE)
    with progress_bar() as bar:
        task = bar.add_task(shown, total=len(entries) * CELEBA_SIDE**2 * 3)
        for info in entries:
            small = read_image(archive, info, _FACE).crop(_CENTRE).resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(small, dtype=np.uint8)
            yield pixels
            bar.advance(task, pixels.nbytes)
