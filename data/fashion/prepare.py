"""Fetch Fashion-MNIST's images (31 MB) in their official form.

python data/fashion/prepare.py                                             download them
python data/fashion/prepare.py --from /usr/share/datasets/fashion-mnist    from Debian's dataset-fashion-mnist
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.array_files import IDX_TEST, IDX_TRAIN
from vdvae_lr.datasets.preparation import argument_parser, ensure_file, run_script
from vdvae_lr.files.paths import path_of

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
# Digests of the unpacked content: Debian packs the same bytes with other gzip settings.
CONTENT_SHA256 = {
    f"{IDX_TRAIN}.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    f"{IDX_TEST}.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
}


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--url", default=URL, help="address of the folder that holds the files")
    parser.add_argument("--from", dest="given", type=path_of, help="folder that holds the files already")
    options = parser.parse_args()
    for name, sha256 in CONTENT_SHA256.items():
        given = options.given / name if options.given else None
        target = options.data_root / name
        print(f"ready: {ensure_file(target, f'{options.url}/{name}', sha256, unpacked=True, given=given)}")


if __name__ == "__main__":
    run_script(main)
