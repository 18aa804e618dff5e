"""The Inception network whose features define FID, with the parameter names of the published weights.

The architecture is Inception-v3 (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision") as
TensorFlow's graph of 2015-12-05 has it, which Heusel et al. 2017 chose for FID. It differs from torchvision's: average
pooling leaves the border out, the last block pools with a maximum, and images are resized without half-pixel centres.

torch-fidelity has the same network. It imports torchvision, which fits one build of torch only, and it unpickles
weights in a way that can run code. `tests/evaluation/quality/test_inception.py` holds ours to its numbers.

Shapes: B images, C channels, H W resolution.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

FEATURES = 2048
_SIDE = 299
Kernel = tuple[int, int, int]
"""Output channels, height and width of a convolution."""
Chain = Sequence[Kernel | tuple[Kernel, Kernel]]
"""Convolutions one after another. A pair, at the end, reads the same input twice."""
Pooling = Literal["average", "largest", "smaller"]
"""average: 3×3 without the border; largest: 3×3; smaller: the maximum of 3×3 at every second place."""


class _Convolution(nn.Module):
    """A convolution without bias, batch normalisation with the stored statistics, and ReLU."""

    def __init__(self, channels: int, kernel: Kernel, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, kernel[0], kernel[1:], stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(kernel[0], eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv(x)), inplace=True)


class _Block(nn.Module):
    """Chains of convolutions side by side, then a pooled copy of the input, joined along the channels."""

    def __init__(self, channels: int, chains: Mapping[str, Chain], pooling: Pooling, pooled: int = 0) -> None:
        super().__init__()
        self._pooling = pooling
        self._chains = [self._make(channels, name, chain) for name, chain in chains.items()]
        self.branch_pool = _Convolution(channels, (pooled, 1, 1)) if pooled else nn.Identity()

    def _make(self, channels: int, name: str, chain: Chain) -> list[tuple[str, ...]]:
        """Add the convolutions of a chain as modules; returns their names, step by step."""
        names = []
        for number, step in enumerate(chain, start=1):
            pair = isinstance(step[0], tuple)
            kernels: Sequence[Kernel] = step if pair else (step,)  # type: ignore[assignment] # mypy keeps the union
            own = f"{name}_{number}" if len(chain) > 1 else name
            strided = self._pooling == "smaller" and number == len(chain)
            names.append(tuple(own + ending for ending in (("a", "b") if pair else ("",))))
            for each, kernel in zip(names[-1], kernels, strict=True):
                padding = (0, 0) if strided else (kernel[1] // 2, kernel[2] // 2)
                self.add_module(each, _Convolution(channels, kernel, 2 if strided else 1, padding))
            channels = kernels[0][0]
        return names

    def forward(self, x: Tensor) -> Tensor:
        joined = []
        for chain in self._chains:
            found = [x]
            for names in chain:
                found = [self.get_submodule(name)(found[0]) for name in names]
            joined += found
        return torch.cat([*joined, self.branch_pool(self._pooled(x))], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pooling == "average":
            return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return max_pool2d(x, 3, stride=1, padding=1) if self._pooling == "largest" else max_pool2d(x, 3, stride=2)


def _block_a(channels: int, pooled: int) -> _Block:
    chains = {
        "branch1x1": [(64, 1, 1)],
        "branch5x5": [(48, 1, 1), (64, 5, 5)],
        "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    }
    return _Block(channels, chains, "average", pooled)


def _block_b(channels: int) -> _Block:
    chains = {"branch3x3": [(384, 3, 3)], "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)]}
    return _Block(channels, chains, "smaller")


def _block_c(channels: int, inner: int) -> _Block:
    chains = {
        "branch1x1": [(192, 1, 1)],
        "branch7x7": [(inner, 1, 1), (inner, 1, 7), (192, 7, 1)],
        "branch7x7dbl": [(inner, 1, 1), (inner, 7, 1), (inner, 1, 7), (inner, 7, 1), (192, 1, 7)],
    }
    return _Block(channels, chains, "average", 192)


def _block_d(channels: int) -> _Block:
    chains = {
        "branch3x3": [(192, 1, 1), (320, 3, 3)],
        "branch7x7x3": [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)],
    }
    return _Block(channels, chains, "smaller")


def _block_e(channels: int, pooling: Pooling) -> _Block:
    fork = ((384, 1, 3), (384, 3, 1))
    chains: Mapping[str, Chain] = {
        "branch1x1": [(320, 1, 1)],
        "branch3x3": [(384, 1, 1), fork],
        "branch3x3dbl": [(448, 1, 1), (384, 3, 3), fork],
    }
    return _Block(channels, chains, pooling, 192)


class Inception(nn.Module):
    """Images (B, 3, H, W) uint8 of any size → features (B, 2048), in the number format of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, (32, 3, 3), stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, (32, 3, 3))
        self.Conv2d_2b_3x3 = _Convolution(32, (64, 3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = _Convolution(64, (80, 1, 1))
        self.Conv2d_4a_3x3 = _Convolution(80, (192, 3, 3))
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b = _block_c(768, 128)
        self.Mixed_6c = _block_c(768, 160)
        self.Mixed_6d = _block_c(768, 160)
        self.Mixed_6e = _block_c(768, 192)
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b = _block_e(1280, "average")
        self.Mixed_7c = _block_e(2048, "largest")
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of images (B, 3, H, W) uint8: (B, 2048)."""
        x = (_resized(pixels.to(self.Conv2d_1a_3x3.conv.weight), _SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, stride=2)))
        x = max_pool2d(x, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                x = block(x)
        return x.mean(dim=(2, 3))


def _resized(x: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) → (B, C, side, side), as TensorFlow 1 resizes: output place i reads input place i·H/side.

    It is bilinear, without antialiasing, and the last row and column are repeated beyond the edge.
    """
    rows, columns = (_bilinear_weights(size, side).to(x) for size in x.shape[2:])
    return rows @ x @ columns.mT


def _bilinear_weights(size: int, side: int) -> Tensor:
    """The weight of each of `size` input places for each output place: (side, size) float64. Rows sum to one."""
    places = torch.arange(side, dtype=torch.float64) * (size / side)
    low, offset = places.long(), torch.arange(size)
    above = (places - low)[:, None]
    high = (low + 1).clamp(max=size - 1)
    return (offset == low[:, None]) * (1 - above) + (offset == high[:, None]) * above
