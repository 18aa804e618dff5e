"""Convert Omniglot to `.npy` files (N, 28, 28, 1) uint8, white ink on black, from either of its two public forms.

The official zip archives hold drawings of 105×105. `chardata.mat` holds the 28×28 version of many papers on VAEs, with
other images in its parts. The two are different data sets: likelihoods are not comparable.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vdvae_lr.datasets.array_files import IDX_SIDE, DataFileError, existing, map_npy, write_npy
from vdvae_lr.datasets.catalogue import OMNIGLOT, OMNIGLOT_SOURCE, naming_the_remedy, shuffled, split_files
from vdvae_lr.datasets.mat_files import read_arrays
from vdvae_lr.datasets.preparation import advising_a_fresh_copy
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.datasets.zipped_images import ImageKind, files_of, opened_zip, read_image
from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import file_sha256
from vdvae_lr.files.paths import cannot_be_read, exists
from vdvae_lr.files.whole_file import disk_errors, write_whole

HELD_OUT = 1_345  # training images for validation; with the seed, as in the public code of IWAE (Burda et al.)
_SEED = 123
_DRAWING = ImageKind("PNG", "L", 105, 105)


@dataclass(frozen=True)
class Contents:
    """How much an archive of drawings holds."""

    alphabets: int
    characters: int
    """Characters of all alphabets together."""
    drawings: int = 20
    """Drawings of each character."""


BACKGROUND, EVALUATION = Contents(30, 964), Contents(20, 659)
MAT_IMAGES: Mapping[str, int] = {"data": 24_345, "testdata": 8_070}
"""Training and test images in `chardata.mat`, by variable."""


def convert_zips(
    archives: Sequence[Path],
    root: Path,
    contents: Sequence[Contents] = (BACKGROUND, EVALUATION),
    held_out: int = HELD_OUT,
) -> dict[Path, int]:
    """Make the files of the three splits from the archives of training and test drawings.

    Returns the number of images in each file. Raises InputError if an archive is damaged or incomplete, or if the files
    exist and were made from another source.
    """
    how = "105×105 drawings, averaged to 28×28 (Pillow's BOX) and inverted"
    return _write(root, archives, how, partial(_read_zips, archives, contents), held_out)


def convert_mat(
    path: Path, root: Path, n_images: Mapping[str, int] = MAT_IMAGES, held_out: int = HELD_OUT
) -> dict[Path, int]:
    """Make the files of the three splits from `chardata.mat` (the rest as `convert_zips`)."""
    how = "columns of 28×28 levels from 0 to 1, transposed to stand upright, times 255"
    return _write(root, [path], how, partial(_read_mat, path, n_images), held_out)


def _write(
    root: Path, sources: Sequence[Path], how: str, read: Callable[[], list[Pixels]], held_out: int
) -> dict[Path, int]:
    """Write training, validation and test images unless they are there, and at last the record of their source."""
    with advising_a_fresh_copy():
        digests = {existing(path).name: file_sha256(path) for path in sources}
        record, targets = root / OMNIGLOT_SOURCE, split_files(root, OMNIGLOT)
        said = json.dumps({"how": how, "sha256": digests}, indent=2, ensure_ascii=False) + "\n"
        if all(map(exists, (record, *targets))):
            _check_source(record, said, sources)
        else:
            with disk_errors(record):
                record.unlink(missing_ok=True)  # until the last file is written, no record must say that they belong
            train, test = read()
            order = shuffled(len(train), _SEED, held_out, sources[0])
            parts = (train[order[:-held_out]], train[order[-held_out:]], test)
            for target, images in zip(targets, parts, strict=True):
                write_npy(target, images.shape, [images])
            write_whole(record, said.encode())
    with naming_the_remedy("omniglot"):
        return {target: len(map_npy(target, IDX_SIDE, 1)) for target in targets}


def _check_source(record: Path, expected: str, sources: Sequence[Path]) -> None:
    try:
        found = record.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise cannot_be_read(record, error) from None
    if found != expected:
        names = " and ".join(path.name for path in sources)
        raise InputError(
            f"{record} says that the images beside it come from another source than {names}: delete it to make them "
            "again, or choose another --data_root"
        )


def _read_zips(archives: Sequence[Path], contents: Sequence[Contents]) -> list[Pixels]:
    return [_read_drawings(path, each) for path, each in zip(archives, contents, strict=True)]


def _read_drawings(path: Path, contents: Contents) -> Pixels:
    """All drawings (N, 28, 28, 1), ordered by alphabet, character and drawing."""
    with opened_zip(path) as archive:
        drawings = {
            name.parts[-3:]: info
            for name, info in files_of(archive, ".png").items()
            if len(name.parts) >= 3 and re.fullmatch(r"character\d+", name.parts[-2])
        }
        _check_complete(path, [(alphabet, character) for alphabet, character, _ in drawings], contents)
        images = [_shrunk(read_image(archive, drawings[name], _DRAWING)) for name in sorted(drawings)]
    return np.stack(images)[..., None]


def _check_complete(path: Path, characters: Sequence[tuple[str, str]], contents: Contents) -> None:
    """Compare what an archive holds with what it should hold, given the alphabet and character of each drawing."""
    drawings = Counter(characters)
    alphabets = {alphabet for alphabet, _ in drawings}
    for found, expected, what in (
        (len(alphabets), contents.alphabets, "alphabets"),
        (len(drawings), contents.characters, "characters"),
    ):
        if found != expected:
            raise DataFileError(f"{path} holds {found} {what} instead of {expected}")
    wrong = sorted(name for name, count in drawings.items() if count != contents.drawings)
    if wrong:
        raise DataFileError(
            f"{path} holds {drawings[wrong[0]]} drawings of {'/'.join(wrong[0])} instead of {contents.drawings}; "
            f"{len(wrong)} of {len(drawings)} characters have a wrong number"
        )


def _shrunk(drawing: Image.Image) -> Pixels:
    small = drawing.resize((IDX_SIDE, IDX_SIDE), Image.Resampling.BOX)
    return np.asarray(ImageOps.invert(small), dtype=np.uint8)


def _read_mat(path: Path, n_images: Mapping[str, int]) -> list[Pixels]:
    arrays = read_arrays(path, {variable: (IDX_SIDE**2, count) for variable, count in n_images.items()})
    return [_upright(path, variable, arrays[variable]) for variable in n_images]


def _upright(path: Path, variable: str, levels: npt.NDArray[Any]) -> Pixels:
    """Turn columns of pixels, stored column by column as MATLAB does, into images (N, 28, 28, 1)."""
    if not (levels.min() >= 0 and levels.max() <= 1):  # NaN is in no range
        raise DataFileError(f"{path}: '{variable}' holds other values than numbers from 0 to 1")
    pixels = np.rint(levels.T * 255.0).astype(np.uint8)
    return np.ascontiguousarray(pixels.reshape(-1, IDX_SIDE, IDX_SIDE).transpose(0, 2, 1)[..., None])
