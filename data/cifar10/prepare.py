"""Fetch CIFAR-10 (170 MB) and unpack it as cifar-10-batches-py/.

python data/cifar10/prepare.py                                  download it
python data/cifar10/prepare.py --from cifar-10-python.tar.gz    use a copy on this machine
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.array_files import CIFAR_PICKLED
from vdvae_lr.datasets.preparation import argument_parser, ensure_file, extract_tar, run_script
from vdvae_lr.files.paths import path_of

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--url", default=URL, help="address of the archive")
    parser.add_argument("--from", dest="given", type=path_of, help="the archive, already downloaded")
    options = parser.parse_args()
    archive = ensure_file(options.data_root / "cifar-10-python.tar.gz", options.url, SHA256, given=options.given)
    print(f"ready: {extract_tar(archive, CIFAR_PICKLED, options.data_root)}")


if __name__ == "__main__":
    run_script(main)
