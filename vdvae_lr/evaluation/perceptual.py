"""Structural similarity: how alike two images look, by a formula without learned weights.

Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity". It
is not LPIPS: there is no network, and nothing is downloaded.

Shapes: B images, C channels, H W resolution, n side of the window.
"""

import torch
from torch import Tensor

_WINDOW = 11
_WINDOW_SCALE = 1.5  # standard deviation of the Gaussian window, in pixels
_LUMINANCE, _CONTRAST = 0.01**2, 0.03**2  # keep the ratios finite if an image is black or flat; range 1


def structural_similarity(image: Tensor, reference: Tensor) -> Tensor:
    """SSIM of images (B, C, H, W) on the target scale, averaged over channels and over whole windows: (B,) float64.

    It is 1 for equal images, near 0 if nothing of the local structure is left, and down to −1 for the negative. The
    window is 11×11 as published, or the largest odd one that fits into a smaller image. Windows that would reach beyond
    the edge are left out.
    """
    x, y = ((one.double() + 1) / 2 for one in (image, reference))  # float64, as variances are differences
    rows, columns = (_gaussian_windows(size, x.device) for size in x.shape[2:])

    def local(values: Tensor) -> Tensor:
        return rows @ values @ columns.mT  # faster than a convolution in float64, and never TF32 on CUDA

    x_mean, y_mean = local(x), local(y)
    x_variance = local(x * x) - x_mean * x_mean
    y_variance = local(y * y) - y_mean * y_mean
    covariance = local(x * y) - x_mean * y_mean
    luminance = (2 * x_mean * y_mean + _LUMINANCE) / (x_mean * x_mean + y_mean * y_mean + _LUMINANCE)
    structure = (2 * covariance + _CONTRAST) / (x_variance + y_variance + _CONTRAST)
    return (luminance * structure).flatten(1).mean(1)


def _gaussian_windows(size: int, device: torch.device) -> Tensor:
    """The weights of the window at each place along a side of `size` pixels: (size − n + 1, size). Rows sum to one."""
    side = min(_WINDOW, size - 1 + size % 2)
    places = size - side + 1
    offset = torch.arange(size, device=device) - torch.arange(places, device=device)[:, None] - side // 2
    weights = torch.exp(-(offset.double() / _WINDOW_SCALE).square() / 2) * (offset.abs() <= side // 2)
    return weights / weights.sum(1, keepdim=True)
