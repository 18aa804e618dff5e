"""Convert downsampled ImageNet (64×64) to imagenet64-train.npy and imagenet64-valid.npy.

    python data/imagenet64/prepare.py --from train_64x64.tar valid_64x64.tar

The archives need an account at image-net.org, so this script cannot fetch them. It takes folders, zip archives and tar
archives of PNG files, of pickled batches or of npz batches. Files with "val" in their path are the validation part.
After an interruption, run it again to go on.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.conversion import main
from vdvae_lr.datasets.preparation import run_script

if __name__ == "__main__":
    run_script(partial(main, __file__, __doc__, 64))
