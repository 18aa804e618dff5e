"""How near a set of pictures is to a set of images: FID, KID, precision and recall, from the features of both.

The features come from a network that was trained to recognise objects; `extractor.py` has it. torchmetrics computes
FID and KID. It is optional, and imported where it is used.

Shapes: N images, M pictures, D features.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import first_line

NEIGHBOURS = 3
"""k of the nearest neighbours. Kynkäänniemi et al. 2019 chose 3."""
FEWEST = NEIGHBOURS + 1
"""Fewest images of each set: one more than neighbours."""
SUBSETS, LARGEST_SUBSET = 100, 1_000
"""Subsets that KID is averaged over, and images in each, as Bińkowski et al. 2018 have them."""
FEW_FOR_FID = 10_000
"""Below this number FID depends strongly on the number itself."""
_AT_ONCE = 1_024  # rows of a matrix of distances


@dataclass(frozen=True)
class Scores:
    """What was found on one set of M pictures."""

    fid: float
    kid: float
    kid_spread: float
    """Standard deviation of KID over its subsets; NaN if each subset is the whole set."""
    precision: float
    recall: float
    pictures: int
    images: int
    """Images of the data set that FID and KID compare with. Precision and recall take as many as pictures."""


def check_installed() -> None:
    """Refuse to begin without torchmetrics.

    Raises:
        InputError: it is not installed, or it fails to import.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: F401
        from torchmetrics.image.kid import KernelInceptionDistance  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another build of torch
        raise InputError(
            f"FID and KID need torchmetrics, which cannot be imported here ({first_line(error)}); install it with "
            "pip install 'vdvae_lr[quality]', and remove a torchvision or torch-fidelity that does not fit this torch."
        ) from None


def score(images: Tensor, pictures: Tensor, *, seed: int, device: torch.device) -> Scores:
    """All scores of pictures (M, D) against images (N, D). It takes float64 on `device`; FID is computed on the CPU.

    Raises:
        InputError: there are fewer than `FEWEST` of either.
    """
    check_enough(len(images), len(pictures))
    fid = frechet_distance(images, pictures)
    images, pictures = images.to(device, torch.float64), pictures.to(device, torch.float64)
    kid, spread = kernel_distance(images, pictures, seed=seed)
    fewer = min(len(images), len(pictures))
    found = precision_and_recall(spread_evenly(images, fewer), spread_evenly(pictures, fewer))
    return Scores(fid, kid, spread, *found, len(pictures), len(images))


def check_enough(images: int, pictures: int) -> None:
    """Refuse sets that are too small for nearest neighbours (raises InputError)."""
    for count, what in ((images, "images of the data set"), (pictures, "pictures of the model")):
        if count < FEWEST:
            raise InputError(
                f"there are {count} {what}, but {NEIGHBOURS} nearest neighbours need {FEWEST}; measure more of them."
            )


def frechet_distance(images: Tensor, pictures: Tensor) -> float:
    """FID (Heusel et al. 2017, eq. 6) of features (N, D) and (M, D), in squared units of a feature.

    It is ‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), with the covariances of n − 1.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    with _quiet():
        metric = FrechetInceptionDistance(_Given(images.shape[1]), sync_on_compute=False)
        for features, real in ((images, True), (pictures, False)):
            for part in features.split(_AT_ONCE):
                metric.update(part.cpu().double(), real=real)
        return max(0.0, float(metric.compute()))  # equal sets can end below 0 by rounding


def kernel_distance(images: Tensor, pictures: Tensor, *, seed: int) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018) of features (N, D) and (M, D) float64, and its standard deviation over subsets.

    It is the unbiased estimate of MMD² with the kernel (x·y/D + 1)³, averaged over random subsets. The deviation is NaN
    if each subset has all images and pictures.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(LARGEST_SUBSET, len(images), len(pictures))
    whole = size == len(images) == len(pictures)
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the library chooses the subsets on the CPU
        metric = KernelInceptionDistance(
            _Given(images.shape[1]), subsets=1 if whole else SUBSETS, subset_size=size, sync_on_compute=False
        )
        metric.update(images, real=True)
        metric.update(pictures, real=False)
        mean, spread = metric.compute()
    return float(mean), torch.nan if whole else float(spread)


def precision_and_recall(images: Tensor, pictures: Tensor) -> tuple[float, float]:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 1 and 2) of features (N, D) and (M, D).

    The manifold of a set is the union of balls around its members, each with the distance to its k-th nearest
    neighbour in the set as radius. Precision is the share of pictures within the manifold of the images, and recall the
    share of images within that of the pictures.
    """
    return _share_within(pictures, images), _share_within(images, pictures)


def _share_within(points: Tensor, members: Tensor) -> float:
    def distances(some: Tensor) -> Iterator[Tensor]:
        return (torch.cdist(part, members) for part in some.split(_AT_ONCE))

    nearest = NEIGHBOURS + 1  # a member is the nearest one to itself
    radii = torch.cat([part.kthvalue(nearest).values for part in distances(members)])
    within = [(part <= radii).any(1) for part in distances(points)]
    return float(torch.cat(within).double().mean())


def spread_evenly(features: Tensor, count: int) -> Tensor:
    """`count` rows of (N, D) at even steps, so that a set sorted by its content is taken from all over: (count, D)."""
    return features[torch.arange(count) * len(features) // count]


def count_warnings(pictures: int, images: int, features: int) -> list[str]:
    """A sentence if FID from so many pictures and images means little or nothing, else nothing."""
    fewest = min(pictures, images)
    if fewest <= features:
        return [
            f"WARNING: FID from {fewest:,} images is meaningless: the covariance of {features:,} features needs at "
            f"least {features + 1:,} images for its full rank. Measure more, or read KID, which has no bias."
        ]
    if fewest < FEW_FOR_FID:
        return [
            f"WARNING: FID from {fewest:,} images is strongly biased upward: fewer images give a larger FID. "
            "Compare it only with FID of the same numbers of images, or read KID, which has no bias."
        ]
    return []


class _Given(nn.Module):
    """Stands where torchmetrics has its network: the features come from elsewhere."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torchmetrics' warning that KID keeps all features in memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted features")
        yield
