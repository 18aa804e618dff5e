"""Fetch MNIST's images (12 MB) in their official form.

python data/mnist/prepare.py                  download them
python data/mnist/prepare.py --from FOLDER    use copies on this machine
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.array_files import IDX_TEST, IDX_TRAIN
from vdvae_lr.datasets.preparation import argument_parser, ensure_file, run_script
from vdvae_lr.files.paths import path_of

URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
MD5 = {  # of the packed files, as torchvision pins them
    f"{IDX_TRAIN}.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    f"{IDX_TEST}.gz": "9fb629c4189551a2d022fa330f9573f3",
}


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--url", default=URL, help="address of the folder that holds the files")
    parser.add_argument("--from", dest="given", type=path_of, help="folder that holds the files already")
    options = parser.parse_args()
    for name, md5 in MD5.items():
        given = options.given / name if options.given else None
        print(f"ready: {ensure_file(options.data_root / name, f'{options.url}/{name}', given=given, md5=md5)}")


if __name__ == "__main__":
    run_script(main)
