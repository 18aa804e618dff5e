"""Convert CelebA to celeba-64-train.npy, celeba-64-valid.npy and celeba-64-test.npy (2.5 GB).

    python data/celeba/prepare.py --from FOLDER

FOLDER holds img_align_celeba.zip and list_eval_partition.txt. Its owners give them through Google Drive, so this script
cannot fetch them. After an interruption, run it again: the files that are whole are kept.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.celeba import ARCHIVE, PARTITION, convert_celeba
from vdvae_lr.datasets.preparation import argument_parser, run_script
from vdvae_lr.files.digests import file_digest
from vdvae_lr.files.paths import path_of

MD5 = {  # as torchvision pins them
    ARCHIVE: "00d2c5bc6d35e252742224ab0c1e8fcb",
    PARTITION: "d32c9cbf5e040fd4025c592c306e6668",
}


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument(
        "--from", dest="given", type=path_of, required=True, help=f"folder of {ARCHIVE} and {PARTITION}"
    )
    options = parser.parse_args()
    for path, n_images in convert_celeba(options.given, options.data_root).items():
        print(f"ready: {path}, {n_images:,} images")
    for name, md5 in MD5.items():
        found = file_digest(options.given / name, "md5")
        if found != md5:  # copies from elsewhere are packed anew; the counts above tell whether they are complete
            print(f"note: {name} has the MD5 {found}; that of the known file is {md5}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
