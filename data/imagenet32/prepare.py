"""Convert downsampled ImageNet (32×32) to imagenet32-train.npy and imagenet32-valid.npy.

    python data/imagenet32/prepare.py --from train_32x32.tar valid_32x32.tar

The archives need an account at image-net.org, so they cannot be fetched here. Folders and zip or tar archives of PNG
files, pickled batches or npz batches will do; what has "val" in its name is the validation part. Run again to go on
after an interruption.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.conversion import convert_imagenet
from vdvae_lr.datasets.preparation import argument_parser, run_script
from vdvae_lr.files.paths import path_of


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--from", dest="given", type=path_of, nargs="+", required=True, help="archives or folders")
    options = parser.parse_args()
    for path, n_images in convert_imagenet(options.given, 32, options.data_root).items():
        print(f"ready: {path}, {n_images:,} images")


if __name__ == "__main__":
    run_script(main)
