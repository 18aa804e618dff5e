"""Structural similarity against another implementation, a loop over windows, and cases that are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.evaluation.perceptual import structural_similarity


def an_image(*shape: int, seed: int = 0) -> Tensor:
    """On the target scale, smooth enough to have a structure."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise.cumsum(-1).cumsum(-2).mul(0.1).tanh()


def by_loops(x: np.ndarray, y: np.ndarray, window: int) -> float:
    """SSIM of one channel (H, W) on [0, 1], from the definition: a weighted mean, variance and covariance a window."""
    line = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    values = []
    for top in range(x.shape[0] - window + 1):
        for left in range(x.shape[1] - window + 1):
            a, b = (image[top : top + window, left : left + window] for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(luminance * (2 * covariance + 9e-4) / (variances + 9e-4))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(3, 1, 32, 32), (2, 3, 32, 32), (2, 3, 13, 27), (1, 1, 11, 11)])
def test_as_scikit_image_has_it(shape: tuple[int, ...]) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    clean, noisy = an_image(*shape), (an_image(*shape) + 0.3 * an_image(*shape, seed=1)).clamp(-1, 1)
    expected = [
        skimage.structural_similarity(
            (x / 2 + 0.5).numpy(),
            (y / 2 + 0.5).numpy(),
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(noisy, clean, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(noisy, clean), expected, rtol=1e-9)
    assert all(0 < value < 0.99 for value in expected)


@pytest.mark.parametrize(("shape", "window"), [((8, 8), 7), ((1, 1), 1), ((2, 2), 1), ((3, 4), 3), ((16, 11), 11)])
def test_a_small_image_has_a_small_window(shape: tuple[int, int], window: int) -> None:
    clean, noisy = an_image(1, 3, *shape), an_image(1, 3, *shape, seed=1)
    pairs = zip((noisy / 2 + 0.5).numpy()[0], (clean / 2 + 0.5).numpy()[0], strict=True)
    expected = np.mean([by_loops(x, y, window) for x, y in pairs])
    assert structural_similarity(noisy, clean).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_images_are_exactly_similar(dtype: torch.dtype) -> None:
    image = torch.cat([an_image(2, 3, 16, 16), torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16)]).to(dtype)
    assert structural_similarity(image, image).tolist() == [1] * 4


def test_flat_images_differ_in_luminance_only() -> None:
    dark, light = torch.full((1, 1, 16, 16), -0.8), torch.full((1, 1, 16, 16), 0.4)
    expected = (2 * 0.1 * 0.7 + 1e-4) / (0.1**2 + 0.7**2 + 1e-4)
    assert structural_similarity(dark, light).item() == pytest.approx(expected, rel=1e-6)


def test_a_negative_is_the_opposite() -> None:
    """About the middle grey, so that luminance is alike: the covariance turns over and nothing else."""
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).mul(2.0).sub(1)[None, None]
    assert structural_similarity(-board, board).item() == pytest.approx(-1, abs=0.01)


def test_less_similar_with_more_noise_whichever_comes_first() -> None:
    clean, noise = an_image(1, 1, 32, 32), torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    values = [structural_similarity(clean + scale * noise, clean).item() for scale in (0.0, 0.1, 0.3, 1.0)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4
    assert structural_similarity(clean, clean + noise).item() == pytest.approx(values[-1], rel=1e-12)


def test_each_image_by_itself() -> None:
    clean, noisy = an_image(3, 3, 16, 16), an_image(3, 3, 16, 16, seed=1)
    together = structural_similarity(noisy, clean)
    assert together.shape == (3,)
    assert together.dtype == torch.float64
    alone = [structural_similarity(noisy[i : i + 1], clean[i : i + 1]).item() for i in range(3)]
    assert together.tolist() == pytest.approx(alone, rel=1e-12)
    assert not math.isclose(*alone[:2], rel_tol=1e-3)
