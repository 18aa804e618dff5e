"""Fine-tune a hierarchical VAE with Latent Reconstruction. Launch manual:

    python train.py                                               a small bundled model and images, on any laptop
    python train.py --hps ffhq256 --alpha_T 1.0                   FFHQ-256 on one card
    mpiexec -n 8 python train.py --hps ffhq256 --alpha_T 1.0      the same optimisation on eight
    torchrun --nproc_per_node 8 train.py --hps ffhq256 --alpha_T 1.0
    srun --wait=60 python train.py --hps ffhq256 --alpha_T 1.0
    python train.py --hps imagenet64 --pretrained none --dataset folder --data_root PHOTOS
    python train.py --hps ffhq256 --test_eval                     the bound of the published weights on the test split
    python train.py --hps ffhq256 --dry_run                       settings, parameters, schedule; computes nothing

The same command again goes on where the run stopped. `python train.py --help` lists every setting.
"""

import sys

from vdvae_lr.cli.start import train

if __name__ == "__main__":
    sys.exit(train())
