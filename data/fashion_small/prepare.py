"""Cut the small data set of this repository out of Fashion-MNIST. Only needed to make the committed files again.

python data/fashion_small/prepare.py --from data/fashion
"""

import gzip
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.array_files import IDX_TEST, IDX_TRAIN, IDX_VALID, read_idx, write_idx
from vdvae_lr.datasets.catalogue import naming_the_remedy
from vdvae_lr.datasets.preparation import argument_parser, run_script
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.files.paths import path_of

N_TRAIN, N_VALID, N_TEST = 6_000, 1_000, 1_000
HELD_OUT = 5_000  # of the official training images; the first of these become the validation images


def main() -> None:
    """Parse the command line and write the three files and their checksums."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--from", dest="given", type=path_of, required=True, help="folder of the official files")
    options = parser.parse_args()
    with naming_the_remedy("fashion"):
        full_train, full_test = (read_idx(options.given, name) for name in (IDX_TRAIN, IDX_TEST))
    subset = {
        IDX_TRAIN: full_train[:N_TRAIN],
        IDX_VALID: full_train[-HELD_OUT:][:N_VALID],
        IDX_TEST: full_test[:N_TEST],
    }
    lines = [write(options.data_root / f"{name}.gz", images) for name, images in subset.items()]
    (options.data_root / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    print("".join(lines), end="")


def write(path: Path, images: Pixels) -> str:
    """Write images (N, 28, 28, 1) as a packed idx file, the same bytes every time; returns its line for SHA256SUMS."""
    packed = gzip.compress(write_idx(images), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    return f"{hashlib.sha256(packed).hexdigest()}  {path.name}\n"


if __name__ == "__main__":
    run_script(main)
