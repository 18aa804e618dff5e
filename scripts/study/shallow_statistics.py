"""The KL of test images with each kind of statistics that batch normalisation can have.

    python scripts/study/shallow_statistics.py runs/shallow/runs/reduced/fashion/lagging_vae-seed0

Evaluation uses the running statistics of training. Training uses those of the batch. The third kind is averaged anew
over training images. Prints one line for each.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vdvae_lr.datasets.catalogue import DATASETS, DataSettings, ImageSource, open_splits
from vdvae_lr.hub.pretrained import PretrainedModel, ShallowVAE
from vdvae_lr.losses.elbo import rate_nats

_BATCH = 32  # as in the reduced protocol
_FAR_NATS = 50.0


def levels(source: ImageSource, rows: np.ndarray) -> Iterator[Tensor]:
    """The images of `rows` (N,), in batches: (32, C, H, W) float32."""
    for part in np.array_split(rows, max(1, len(rows) // _BATCH)):
        yield torch.from_numpy(source.read(part)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def rates(model: ShallowVAE, source: ImageSource) -> Tensor:
    """The KL of every image in nats: (N,)."""
    found = []
    for images in levels(source, np.arange(len(source))):
        passed = model.infer(images)  # the KL of one latent group does not depend on its noise
        found.append(rate_nats(passed.posteriors, passed.priors))
    return torch.cat(found)


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The model's layers of batch normalisation."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def average_anew(model: ShallowVAE, source: ImageSource, images: int) -> None:
    """Replace the running statistics by their mean over batches of the first `images` of a shuffled split."""
    for layer in batch_norms(model):
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a plain mean
    model.train()
    for batch in levels(source, np.random.default_rng(0).permutation(len(source))[:images]):
        model.infer(batch)
    model.eval()


def line(kind: str, found: Tensor) -> str:
    """Mean, median, largest, and the share of images that lie far away."""
    far = (found > _FAR_NATS).double().mean()
    numbers = f"mean {found.mean():.2f}, median {found.median():.2f}, largest {found.max():.1f} nats"
    return f"{kind}: {numbers}; {far:.2%} of {len(found):,} images above {_FAR_NATS:.0f}"


def main() -> None:
    """Print the three lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run, or other weights")
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="fashion")
    parser.add_argument("--data_root", default="", help="folder of the data set, if it is not data/NAME")
    parser.add_argument("--images", type=int, default=16_000, help="training images of the new averages")
    given = parser.parse_args()
    model = PretrainedModel.from_pretrained(given.run)
    settings = DataSettings(dataset=given.dataset, data_root=given.data_root)
    splits = open_splits(settings, model.config.image_size, model.config.image_channels)
    print(line("running statistics of training", rates(model.eval(), splits.test)))
    for layer in batch_norms(model):
        layer.momentum = 0.0  # the batch's own are used, and the running ones stay
    print(line(f"statistics of batches of {_BATCH} test images", rates(model.train(), splits.test)))
    average_anew(model, splits.train, given.images)
    print(line(f"averages over {given.images:,} training images", rates(model, splits.test)))


if __name__ == "__main__":
    main()
