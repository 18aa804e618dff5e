"""Which subfolders of a folder of images are its training, validation and test parts.

Names are understood in any letter case. Where a folder looks held out and its part in the split is not clear, the
folder is refused: held-out images are never trained on by mistake.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdvae_lr.datasets.finding import entries, is_image_name, leads_to_folder
from vdvae_lr.errors import InputError

_NAMES = {
    "train": frozenset({"train", "training"}),
    "valid": frozenset({"valid", "val", "validation", "dev", "eval", "evaluation", "holdout", "heldout"}),
    "test": frozenset({"test", "testing"}),
}
_LIKE_A_PART = re.compile(r"(?P<word>[a-z]+?)(set|data|images|imgs|split|[^a-z].*)?")  # test_images, val2017, trainset


@dataclass(frozen=True)
class SplitFolders:
    """The parts of a folder, and what lies beside them by the reason it is left out.

    At least one of `valid` and `test` is there.
    """

    train: Path
    valid: Path | None
    test: Path | None
    left_out: Mapping[str, int]


def find_split_folders(root: Path) -> SplitFolders | None:
    """The parts of `root`; None where it has no folder of training images and no held-out one.

    Raises:
        InputError: two folders are the same part, held-out folders have no `train` beside them or names that are only
            like those of parts, or `root` may not be read.
    """
    shown = [entry for entry in entries(root) if not entry.name.startswith(".")]
    folders = [entry.name for entry in shown if leads_to_folder(entry)]
    parts = {part: _one(root, part, [name for name in folders if _part(name) == part]) for part in _NAMES}
    train, valid, test = parts["train"], parts["valid"], parts["test"]
    if train is not None and (valid or test):
        beside = Counter(f"folder '{name}' beside '{train}'" for name in folders if _part(name) is None)
        files = {entry.name for entry in shown} - set(folders)
        beside[f"image beside '{train}'"] = sum(map(is_image_name, files))
        return SplitFolders(root / train, root / valid if valid else None, root / test if test else None, beside)
    if valid or test:
        raise InputError(
            f"{root} has the folder '{valid or test}', whose images look held out, but no folder 'train' beside it: "
            "put the training images in a folder 'train', or rename the other one if its images are to be trained on"
        )
    _refuse_near_names(root, folders)
    return None


def refuse_splits_below(root: Path, names: Sequence[str]) -> None:
    """Refuse images that lie in parts of a split further down, such as root/photos/train and root/photos/val.

    Args:
        root: a folder that has no such parts itself.
        names: of its images.
    """
    parts: dict[str, dict[str, str]] = {}
    for folder in {name.rpartition("/")[0] for name in names}:
        *above, last = folder.split("/")
        while above:
            part = _part(last)
            if part is not None:
                parts.setdefault("/".join(above), {})["held out" if part != "train" else part] = last
            *above, last = above
    for folder in sorted(parts, key=os.fsencode):
        found = parts[folder]
        if len(found) == 2:
            raise InputError(
                f"{root / folder} has the folders '{found['train']}' and '{found['held out']}', so its held-out images "
                "would be trained on: name that folder with --data_root, or rename the two"
            )


def _part(name: str) -> str | None:
    word = re.sub(r"[ _-]", "", name.casefold())
    return next((part for part, names in _NAMES.items() if word in names), None)


def _near_part(name: str) -> str | None:
    match = _LIKE_A_PART.fullmatch(name.casefold())
    return _part(match["word"]) if match else None


def _one(root: Path, part: str, names: Sequence[str]) -> str | None:
    """The only folder of a part; two names of one folder are one."""
    if len(names) > 1 and not all((root / names[0]).samefile(root / other) for other in names[1:]):
        raise InputError(
            f"{root} has the folders {' and '.join(repr(name) for name in names)}, which would both be '{part}': keep "
            f"one of them there, called '{part}'"
        )
    return names[0] if names else None


def _refuse_near_names(root: Path, folders: Sequence[str]) -> None:
    """Refuse names such as train2017 and val2017: no exact names were found, so all would be trained on."""
    near = {name: part for name in folders if (part := _near_part(name)) is not None}
    if "train" in near.values() and len(set(near.values())) > 1:
        renamed = ", ".join(f"'{name}' to '{part}'" for name, part in near.items() if _part(name) is None)
        raise InputError(
            f"{root} has folders that look like parts of a split, but are not called so: rename {renamed}, or give "
            "them names that do not look like it"
        )
