"""Convert Omniglot to omniglot-train.npy, omniglot-valid.npy and omniglot-test.npy, from one of two sources.

python data/omniglot/prepare.py                        download the official archives (16 MB)
python data/omniglot/prepare.py --from FOLDER          images_background.zip and images_evaluation.zip in a folder
python data/omniglot/prepare.py --from chardata.mat    the 28×28 version of many papers
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.omniglot import convert_mat, convert_zips
from vdvae_lr.datasets.preparation import argument_parser, ensure_file, run_script
from vdvae_lr.files.paths import is_file, path_of

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
MD5 = {  # as torchvision pins them
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--url", default=URL, help="address of the folder that holds the archives")
    parser.add_argument("--from", dest="given", type=path_of, help="folder that holds the archives, or chardata.mat")
    options = parser.parse_args()
    given, root = options.given, options.data_root
    if given and is_file(given):
        written = convert_mat(given, root)
    else:
        archives = [
            ensure_file(root / name, f"{options.url}/{name}", given=given / name if given else None, md5=md5)
            for name, md5 in MD5.items()
        ]
        written = convert_zips(archives, root)
    for path, n_images in written.items():
        print(f"ready: {path}, {n_images:,} images")


if __name__ == "__main__":
    run_script(main)
