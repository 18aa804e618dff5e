"""Cut the small data set of this repository out of Fashion-MNIST; run only to make the committed files again.

python data/fashion_small/prepare.py --from data/fashion
"""

import gzip
import hashlib
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.idx import HELD_OUT, TEST_FILE, TRAIN_FILE, VALID_FILE, read_idx_images
from vdvae_lr.datasets.preparation import argument_parser, run_script
from vdvae_lr.datasets.sources import Pixels
from vdvae_lr.files.paths import path_of

N_TRAIN, N_VALID, N_TEST = 6_000, 1_000, 1_000


def main() -> None:
    """Parse the command line and write the three files and their checksums."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--from", dest="given", type=path_of, required=True, help="folder of the official files")
    options = parser.parse_args()
    full_train = read_idx_images(options.given, TRAIN_FILE, "fashion")
    full_test = read_idx_images(options.given, TEST_FILE, "fashion")
    subset = {
        TRAIN_FILE: full_train[:N_TRAIN],
        VALID_FILE: full_train[-HELD_OUT:][:N_VALID],
        TEST_FILE: full_test[:N_TEST],
    }
    lines = [write(options.data_root / f"{name}.gz", images) for name, images in subset.items()]
    (options.data_root / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    print("".join(lines), end="")


def write(path: Path, images: Pixels) -> str:
    """Write images (N, 28, 28, 1) as a packed idx file, the same bytes every time; its line for SHA256SUMS."""
    header = struct.pack(">IIII", 0x00000803, *images.shape[:3])
    packed = gzip.compress(header + images.tobytes(), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    return f"{hashlib.sha256(packed).hexdigest()}  {path.name}\n"


if __name__ == "__main__":
    run_script(main)
