"""How a folder of images is split: by subfolders such as `train` and `val`, or by a hash of each image's name.

Folder names are understood in any letter case. A folder that looks held out, but has no clear part in the split, is an
error. So held-out images are never trained on by mistake.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdvae_lr.datasets.finding import is_image_name
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import is_folder

HELD_OUT_SHARE = 0.05
"""Share of the images in each part that is held out by name."""
_NAMES = {
    "train": frozenset({"train", "training"}),
    "valid": frozenset({"valid", "val", "validation", "dev", "eval", "evaluation", "holdout", "heldout"}),
    "test": frozenset({"test", "testing"}),
}
_LIKE_A_PART = re.compile(r"(?P<word>[a-z]+?)(set|data|images|imgs|split|[^a-z].*)?")  # test_images, val2017, trainset


@dataclass(frozen=True)
class SplitFolders:
    """The folders of the parts. `valid`, `test` or both are there."""

    train: Path
    valid: Path | None
    test: Path | None
    left_out: Mapping[str, int]
    """What lies beside them, counted by the reason to leave it out."""


def find_split_folders(root: Path, folders: Sequence[str], files: Sequence[str]) -> SplitFolders | None:
    """The folders of the parts in `root`; None unless it has one for training and one for held-out images.

    Args:
        root: where everything lies.
        folders: names of the folders right in it.
        files: names of the files beside those.

    Raises:
        InputError: two folders are the same part, a held-out folder has no `train` beside it, or names are only similar
            to those of parts.
    """
    parts = {part: _one(root, part, [name for name in folders if part_of_split(name) == part]) for part in _NAMES}
    train, valid, test = parts["train"], parts["valid"], parts["test"]
    if train is not None and (valid or test):
        beside = Counter(f"folder '{name}' beside '{train}'" for name in folders if part_of_split(name) is None)
        beside[f"image beside '{train}'"] = sum(map(is_image_name, files))
        return SplitFolders(root / train, root / valid if valid else None, root / test if test else None, beside)
    if valid or test:
        raise InputError(
            f"{root} has the folder '{valid or test}', whose images look held out, but no folder 'train' beside it: "
            "put the training images in a folder 'train', or rename the other one if its images are to be trained on"
        )
    _refuse_similar_names(root, folders)
    return None


def refuse_splits_below(root: Path, names: Sequence[str]) -> None:
    """Raise InputError for images in parts of a split further down, such as root/photos/train and root/photos/val."""
    parts: dict[str, dict[str, str]] = {}
    for folder in {name.rpartition("/")[0] for name in names}:
        *above, last = folder.split("/")
        while above:
            part = part_of_split(last)
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


def split_by_name(names: Sequence[str], folder: Path, held_out_parts: int = 2) -> list[list[str]]:
    """Split names by a hash of each: training images, then one or two parts of about 5 % each, at least one image each.

    So an image that is added later moves no other one from training to a held-out part. The exception are the first few
    dozen images, where a part would be empty otherwise. Raises InputError if there are too few images.
    """
    if len(names) <= held_out_parts:
        needed = "training, validation and test" if held_out_parts == 2 else "training and validation"
        least = held_out_parts + 1
        raise InputError(f"{folder} holds {len(names)} of the {least} images that {needed} need at least: add images")
    places = {name: _place(name) for name in names}
    order = sorted(names, key=lambda name: places[name])
    held_out = []
    for part in range(held_out_parts):
        low, high = part * HELD_OUT_SHARE, (part + 1) * HELD_OUT_SHARE
        share = sum(low <= place < high for place in places.values())
        most = len(order) - (held_out_parts - part)  # one image has to remain for each part that follows
        size = min(max(1, share), most)
        held_out.append(_by_bytes(order[:size]))
        order = order[size:]
    return [_by_bytes(order), *held_out]


def _place(name: str) -> float:
    """A number in [0, 1) computed from the name's bytes; the locale does not matter."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def _by_bytes(names: Sequence[str]) -> list[str]:
    return sorted(names, key=os.fsencode)


def part_of_split(name: str) -> str | None:
    """`train`, `valid` or `test` if a name is a usual one for that part; else None."""
    word = re.sub(r"[ _-]", "", name.casefold())
    return next((part for part, names in _NAMES.items() if word in names), None)


def _similar_part(name: str) -> str | None:
    match = _LIKE_A_PART.fullmatch(name.casefold())
    return part_of_split(match["word"]) if match else None


def _one(root: Path, part: str, names: Sequence[str]) -> str | None:
    """The only folder of a part. Two names that lead to one folder are allowed."""
    on_disk = is_folder(root)  # in an archive no two names are one folder
    if len(names) > 1 and not (on_disk and all((root / names[0]).samefile(root / other) for other in names[1:])):
        raise InputError(
            f"{root} has the folders {' and '.join(repr(name) for name in names)}, which would both be '{part}': keep "
            f"one of them there, called '{part}'"
        )
    return names[0] if names else None


def _refuse_similar_names(root: Path, folders: Sequence[str]) -> None:
    """Refuse names such as train2017 and val2017. They are no parts, so all their images would be trained on."""
    similar = {name: part for name in folders if (part := _similar_part(name)) is not None}
    if "train" in similar.values() and len(set(similar.values())) > 1:
        renamed = ", ".join(f"'{name}' to '{part}'" for name, part in similar.items() if part_of_split(name) is None)
        raise InputError(
            f"{root} has folders that look like parts of a split, but do not have their names: rename {renamed}, or "
            "give them names that look different"
        )
