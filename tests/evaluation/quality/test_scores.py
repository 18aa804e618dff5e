"""FID, KID, precision and recall against closed forms, direct sums and sets whose answer is seen."""

import math
import sys

import pytest
import torch
from refusals import refused
from torch import Tensor

from vdvae_lr.evaluation.quality import scores
from vdvae_lr.evaluation.quality.scores import (
    check_enough,
    check_installed,
    count_warnings,
    frechet_distance,
    kernel_distance,
    precision_and_recall,
    score,
    spread_evenly,
)

CPU = torch.device("cpu")


def normal(count: int, features: int, seed: int) -> Tensor:
    return torch.randn(count, features, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_moments(mean: Tensor, factor: Tensor, count: int, seed: int) -> Tensor:
    """Features whose sample mean is `mean`, and whose covariance is factor·factorᵀ, to rounding: (count, D)."""
    features = normal(count, len(mean), seed)
    features = features - features.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(features.T.cov()), features.T, upper=False).T
    return mean + whitened @ factor.T


def root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


@pytest.mark.parametrize("counts", [(50, 50), (2_500, 40)])
def test_fid_is_the_distance_between_gaussians(counts: tuple[int, int]) -> None:
    means, factors = normal(2, 5, 0), [normal(5, 5, seed) for seed in (1, 2)]
    sets = [with_moments(means[i], factors[i], counts[i], 3 + i) for i in range(2)]
    first, second = (factor @ factor.T for factor in factors)
    cross = root(root(first) @ second @ root(first)).trace()  # no product of unlike matrices, as the code takes
    expected = (means[0] - means[1]).square().sum() + first.trace() + second.trace() - 2 * cross
    assert frechet_distance(*sets) == pytest.approx(float(expected), rel=1e-8)
    assert frechet_distance(sets[1], sets[0]) == pytest.approx(float(expected), rel=1e-8)


def test_fid_of_a_set_with_itself_is_zero() -> None:
    features = normal(300, 6, 0).float()
    assert 0 <= frechet_distance(features, features.flip(0)) < 1e-6


def test_fid_of_fewer_samples_is_larger() -> None:
    """The bias that the warnings speak of."""
    images = normal(4_000, 8, 0)
    few, many = (
        sum(frechet_distance(images, normal(count, 8, seed)) for seed in range(1, 9)) / 8 for count in (20, 500)
    )
    assert few > 10 * many > 0


def direct_kid(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate, pair by pair."""

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    def within(each: Tensor) -> float:
        count = len(each)
        pairs = [kernel(each[i], each[j]) for i in range(count) for j in range(count) if i != j]
        return sum(pairs) / (count * (count - 1))

    return within(x) + within(y) - 2 * sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))


def test_kid_of_whole_sets_is_the_sum_over_pairs() -> None:
    x, y = normal(7, 3, 0), normal(7, 3, 1) + 0.5
    kid, spread = kernel_distance(x, y, seed=0)
    assert kid == pytest.approx(direct_kid(x, y), rel=1e-9)
    assert math.isnan(spread)


def test_kid_has_no_bias() -> None:
    """Over many small sets of one distribution it is zero on average, though FID is not; a shift makes it positive."""
    found = torch.tensor([kernel_distance(normal(12, 4, i), normal(12, 4, 1_000 + i), seed=0)[0] for i in range(200)])
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean())) < 3 * error
    shifted = [kernel_distance(normal(12, 4, i), normal(12, 4, 1_000 + i) + 1, seed=0)[0] for i in range(50)]
    assert sum(shifted) / 50 > 10 * error


def test_kid_over_subsets_depends_on_its_seed_only() -> None:
    x, y = normal(1_200, 3, 0), normal(1_100, 3, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = kernel_distance(x, y, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert kernel_distance(x, y, seed=0) == found != kernel_distance(x, y, seed=1)
    assert 0 < found[1] < 0.1


def cluster(centre: float, count: int) -> Tensor:
    """`count` points within 0.1 of (centre, 0)."""
    return torch.tensor([centre, 0.0]) + 0.1 * torch.rand(count, 2, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    ("images", "pictures", "expected"),
    [
        ([0, 5], [0, 0], (1.0, 0.5)),  # half of the images' places is never made
        ([0, 0], [0, 5], (0.5, 1.0)),  # half of the pictures is like no image
        ([0, 5], [5, 9], (0.5, 0.5)),
        ([0, 5], [20, 30], (0.0, 0.0)),
        ([0, 5], [0, 5], (1.0, 1.0)),
    ],
)
def test_precision_and_recall_of_clusters(
    images: list[float], pictures: list[float], expected: tuple[float, float]
) -> None:
    sets = [torch.cat([cluster(centre, 20) for centre in centres]).double() for centres in (images, pictures)]
    assert precision_and_recall(*sets) == expected


def test_precision_and_recall_is_the_definition_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    images, pictures = normal(40, 3, 0), 0.8 * normal(35, 3, 1) + 0.9

    def share(points: Tensor, members: Tensor, neighbour: int) -> float:
        balls = [(one, sorted(float((one - other).norm()) for other in members)[neighbour]) for one in members]
        inside = [any(float((point - one).norm()) <= radius for one, radius in balls) for point in points]
        return sum(inside) / len(inside)

    by_neighbour = [(share(pictures, images, k), share(images, pictures, k)) for k in (2, 3, 4)]
    assert len({found[0] for found in by_neighbour}) == len({found[1] for found in by_neighbour}) == 3
    for at_once in (1_024, 7, 1):
        monkeypatch.setattr(scores, "_AT_ONCE", at_once)
        assert precision_and_recall(images, pictures) == pytest.approx(by_neighbour[1])


def test_precision_takes_as_many_images_as_pictures_from_all_over_a_sorted_set() -> None:
    images = torch.cat([cluster(centre, 40) for centre in (0, 5)])
    pictures = torch.cat([cluster(centre, 10) for centre in (0, 5)])
    found = score(images, pictures, seed=0, device=CPU)
    assert found.precision == 1.0  # 0.5 with the first 20 images, which are all of one cluster
    assert (found.images, found.pictures) == (80, 20)
    assert spread_evenly(torch.arange(10.0)[:, None], 4).flatten().tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize(
    ("pictures", "images", "words"),
    [
        (2_048, 50_000, "2,048 images is meaningless: the covariance of 2,048 features needs at least 2,049"),
        (50_000, 100, "100 images is meaningless"),
        (2_049, 50_000, "2,049 images is strongly biased upward"),
        (10_000, 9_999, "9,999 images is strongly biased upward"),
        (10_000, 10_000, ""),
    ],
)
def test_fid_of_few_images_is_warned_about(pictures: int, images: int, words: str) -> None:
    found = count_warnings(pictures, images, 2_048)
    assert len(found) == bool(words) and all(words in each and each.startswith("WARNING: ") for each in found)


def test_sets_without_neighbours_are_refused() -> None:
    check_enough(4, 4)
    with refused("3 images of the data set", "3 nearest neighbours need 4", "measure more"):
        check_enough(3, 100)
    with refused("1 pictures of the model", "nearest neighbours", "measure more"):
        score(torch.zeros(9, 2), torch.zeros(1, 2), seed=0, device=CPU)


def test_without_torchmetrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, "torchmetrics.image.kid", None)
    with refused("torchmetrics", "cannot be imported here", "pip install 'vdvae_lr[quality]'"):
        check_installed()
