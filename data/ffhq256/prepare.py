"""Fetch FFHQ at 256×256 as the published file ffhq-256.npy (13.8 GB).

python data/ffhq256/prepare.py                        download it; after an interruption, run it again to go on
python data/ffhq256/prepare.py --from ffhq-256.npy    use a copy on this machine
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.array_files import map_npy
from vdvae_lr.datasets.catalogue import naming_the_remedy
from vdvae_lr.datasets.preparation import argument_parser, ensure_file, run_script
from vdvae_lr.files.paths import path_of

URL = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets/ffhq-256.npy"


def main() -> None:
    """Parse the command line and prepare the data set."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("--url", default=URL, help="address of the file")
    parser.add_argument("--from", dest="given", type=path_of, help="the file, already downloaded")
    options = parser.parse_args()
    path = ensure_file(options.data_root / "ffhq-256.npy", options.url, given=options.given)
    with naming_the_remedy("ffhq256"):
        print(f"ready: {path}, {len(map_npy(path, 256)):,} images")


if __name__ == "__main__":
    run_script(main)
