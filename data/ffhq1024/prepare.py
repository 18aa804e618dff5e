"""Sort the 70,000 official 1024×1024 FFHQ images into ffhq1024/train and ffhq1024/valid, as published.

    python data/ffhq1024/prepare.py --from images1024x1024

Images 00000 … 64999 are for training, 65000 … 69999 for validation and test. The files are linked, or copied if the
target is on another disk.
"""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.preparation import argument_parser, run_script
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import path_of

FIRST_VALIDATION_IMAGE = 65_000
TOTAL = 70_000


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--from", dest="given", type=path_of, required=True, help="folder of the official PNG files")
    options = parser.parse_args()
    target = options.data_root / "ffhq1024"
    counts = sort_images(options.given, target)
    print(f"ready: {target}, {counts['train']:,} training and {counts['valid']:,} validation images")
    if sum(counts.values()) != TOTAL:
        print(f"note: the whole data set has {TOTAL:,} images", file=sys.stderr)


def sort_images(given: Path, target: Path) -> dict[str, int]:
    """Place every PNG file in and below `given` by its number. Returns the number of images in each split."""
    numbered = [path for path in given.rglob("*.png") if path.stem.isdecimal()]
    if not numbered:
        raise InputError(f"{given} holds no numbered PNG files such as 00000.png: name the official folder with --from")
    counts = {"train": 0, "valid": 0}
    for image in sorted(numbered):
        split = "valid" if int(image.stem) >= FIRST_VALIDATION_IMAGE else "train"
        place(image, target / split / image.name)
        counts[split] += 1
    return counts


def place(image: Path, target: Path) -> None:
    """Link `image` to `target`, or copy it. A target that exists is whole, since a copy gets its name at the end."""
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(image.resolve(), target)
        except OSError:  # another disk, or one without links
            part = target.with_name(target.name + ".part")
            shutil.copyfile(image, part)
            part.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}): make room, or choose another --data_root") from error


if __name__ == "__main__":
    run_script(main)
