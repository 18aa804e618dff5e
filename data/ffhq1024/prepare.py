"""Sort the 70,000 official 1024×1024 FFHQ images into ffhq1024/train and ffhq1024/valid, as published.

    python data/ffhq1024/prepare.py --from images1024x1024

Images 00000 … 64999 train, 65000 … 69999 validate (and test). The files are linked, or copied where they cannot be.
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
    """Place every PNG file of `given` (searched recursively) by its number; images a split. Can be run again."""
    numbered = [path for path in given.rglob("*.png") if path.stem.isdecimal()]
    if not numbered:
        raise InputError(f"{given} holds no numbered PNG files such as 00000.png: name the official folder with --from")
    counts = {"train": 0, "valid": 0}
    for source in sorted(numbered):
        split = "valid" if int(source.stem) >= FIRST_VALIDATION_IMAGE else "train"
        place(source, target / split / source.name)
        counts[split] += 1
    return counts


def place(source: Path, target: Path) -> None:
    """Link `source` to `target`, or copy it; a target that is there is whole, since a copy lands by renaming."""
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.resolve(), target)
        except OSError:  # another disk, or one without links
            part = target.with_name(target.name + ".part")
            shutil.copyfile(source, part)
            part.replace(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error}): make room, or choose another --data_root") from error


if __name__ == "__main__":
    run_script(main)
