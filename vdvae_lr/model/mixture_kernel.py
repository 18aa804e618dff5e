"""The discretised logistic mixture as one Triton kernel: log p(x|z) and its derivatives in one pass over the numbers.

It computes what `LogisticMixture` computes, with the same formulas, branches and constants. In torch that takes some 80
operations, each of which reads and writes memory. The kernel reads each number of a pixel once, and writes each
derivative once.

Importing this module imports Triton, which comes with torch for CUDA. So import it where it is used.

Shapes: P pixels of one program, K components in L lanes (L is K rounded up to a power of two).
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vdvae_lr.model.logistic_mixture import DENSITY_BELOW_MASS, MIN_LOG_SCALE, Bins, parameters_per_component

ELEMENTS, WARPS = 512, 8
"""Pixels times lanes of one program, and its warps. With two elements a thread nothing spills, and half of the threads
of a multiprocessor find registers (docs/benchmarks/kernels.md)."""
_MIN_LOG_SCALE = tl.constexpr(MIN_LOG_SCALE)
_LEAST_MASS = tl.constexpr(DENSITY_BELOW_MASS)


def with_slopes(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """log p(x|z) per pixel (B, H, W), and its derivatives by the parameters, like these: a `WithSlopes`.

    Args:
        parameters: (B, K · parameters_per_component(C), H, W) in any memory format, on CUDA.
        image: (B, C, H, W).
        bins: how values are discretised.
    """
    launch = arguments(parameters, image, bins)
    grid = (triton.cdiv(launch["pixels"], launch["P"]) * len(parameters),)
    mixture_kernel[grid](**launch, num_warps=WARPS)
    shape = image.shape[2:]
    return launch["log_prob"].unflatten(1, shape), launch["slopes"].unflatten(2, shape)


def arguments(parameters: Tensor, image: Tensor, bins: Bins) -> dict[str, Any]:
    """The kernel's arguments by name, with new tensors for its results."""
    numbers, values = parameters.flatten(2), image.to(parameters.dtype).flatten(2)  # views, where pixels lie in order
    slopes = torch.empty_like(numbers)
    if slopes.stride() != numbers.stride():  # the kernel has one set of strides for both
        numbers = numbers.contiguous()
        slopes = torch.empty_like(numbers)
    components = numbers.shape[1] // parameters_per_component(image.shape[1])
    lanes = triton.next_power_of_2(components)
    half_width = bins.half_width
    return {
        "numbers": numbers,
        "image": values,
        "log_prob": numbers.new_empty(numbers.shape[0], numbers.shape[2]),
        "slopes": slopes,
        "pixels": numbers.shape[2],
        **dict(zip(("numbers_b", "numbers_n", "numbers_p"), numbers.stride(), strict=True)),
        **dict(zip(("image_b", "image_c", "image_p"), values.stride(), strict=True)),
        "CHANNELS": image.shape[1],
        "K": components,
        "LANES": lanes,
        "P": max(1, ELEMENTS // lanes),
        "BINS": (half_width, math.log(2 * half_width), bins.lowest_below, bins.highest_above),
    }


@triton.jit  # type: ignore[untyped-decorator]
def mixture_kernel(
    numbers: tl.tensor,
    image: tl.tensor,
    log_prob: tl.tensor,
    slopes: tl.tensor,
    pixels: tl.tensor,
    numbers_b: tl.tensor,
    numbers_n: tl.tensor,
    numbers_p: tl.tensor,
    image_b: tl.tensor,
    image_c: tl.tensor,
    image_p: tl.tensor,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    LANES: tl.constexpr,
    P: tl.constexpr,
    BINS: tl.constexpr,
) -> None:
    """P pixels of one image. `_b`, `_n`, `_c` and `_p` are strides by image, number, channel and pixel."""
    blocks = tl.cdiv(pixels, P)
    which = (tl.program_id(0) // blocks).to(tl.int64)  # offsets may exceed 32 bits
    pixel = (tl.program_id(0) % blocks) * P + tl.arange(0, P).to(tl.int64)
    lane = tl.arange(0, LANES).to(tl.int64)
    inside = pixel < pixels
    here = inside[:, None] & (lane < K)[None, :]
    first = which * numbers_b + pixel[:, None] * numbers_p + lane[None, :] * numbers_n  # of each component: its logit
    step = K * tl.full([], 1, tl.int64) * numbers_n  # from one number of a component to its next one
    given, made = numbers + first, slopes + first
    place = image + which * image_b + pixel * image_p
    logits = tl.load(given, mask=here, other=0.0)
    weights, log_weights = _softmax(tl.where((lane < K)[None, :], logits, float("-inf")))
    red = tl.load(place, mask=inside, other=0.0)[:, None]
    log_red, mean_red, scale_red = _channel(red, 0.0, given + step, step, here, BINS)
    if CHANNELS == 3:
        green = tl.load(place + image_c, mask=inside, other=0.0)[:, None]
        blue = tl.load(place + 2 * image_c, mask=inside, other=0.0)[:, None]
        to_green, slope_to_green = _tanh(tl.load(given + 3 * step, mask=here, other=0.0))
        red_to_blue, slope_red_to_blue = _tanh(tl.load(given + 6 * step, mask=here, other=0.0))
        green_to_blue, slope_green_to_blue = _tanh(tl.load(given + 9 * step, mask=here, other=0.0))
        log_green, mean_green, scale_green = _channel(green, to_green * red, given + 4 * step, step, here, BINS)
        shift = red_to_blue * red + green_to_blue * green
        log_blue, mean_blue, scale_blue = _channel(blue, shift, given + 7 * step, step, here, BINS)
        log_red += log_green + log_blue
    by_component = log_red + log_weights
    likeliest = tl.max(by_component, 1)
    summed = likeliest + tl.log(tl.sum(tl.exp(by_component - likeliest[:, None]), 1))
    tl.store(log_prob + which * pixels + pixel, summed, mask=inside)
    chosen = tl.exp(by_component - summed[:, None])  # the components' posterior
    tl.store(made, chosen - weights, mask=here)
    tl.store(made + step, -chosen * mean_red, mask=here)
    tl.store(made + 2 * step, -chosen * scale_red, mask=here)
    if CHANNELS == 3:
        by_green, by_blue = -chosen * mean_green, -chosen * mean_blue
        tl.store(made + 3 * step, slope_to_green * by_green * red, mask=here)
        tl.store(made + 4 * step, by_green, mask=here)
        tl.store(made + 5 * step, -chosen * scale_green, mask=here)
        tl.store(made + 6 * step, slope_red_to_blue * by_blue * red, mask=here)
        tl.store(made + 7 * step, by_blue, mask=here)
        tl.store(made + 8 * step, -chosen * scale_blue, mask=here)
        tl.store(made + 9 * step, slope_green_to_blue * by_blue * green, mask=here)


@triton.jit  # type: ignore[untyped-decorator]
def _channel(
    value: tl.tensor, shift: tl.tensor, means: tl.tensor, step: tl.tensor, here: tl.tensor, BINS: tl.constexpr
) -> tl.tensor:
    """One channel of P pixels (P, 1), given the shift (P, L) of its means by the earlier channels.

    Returns log p of the value by component, and minus its derivatives by mean and log-scale: (P, L) each. The names are
    those of `LogisticMixture`.
    """
    centred = value - (tl.load(means, mask=here, other=0.0) + shift)
    raw_log_scale = tl.load(means + step, mask=here, other=0.0)
    log_scale = tl.where(raw_log_scale < _MIN_LOG_SCALE, _MIN_LOG_SCALE, raw_log_scale)  # tl.maximum would hide NaN
    inverse_scale = tl.exp(-log_scale)
    upper, lower = inverse_scale * (centred + BINS[0]), inverse_scale * (centred - BINS[0])
    middle = inverse_scale * centred
    below_upper, soft_upper = _logistic(upper)
    below_lower, soft_lower = _logistic(lower)
    below_middle, soft_middle = _logistic(middle)
    mass = below_upper - below_lower
    open_below, open_above = value < BINS[2], value > BINS[3]

    log_density = middle - log_scale - 2.0 * soft_middle + BINS[1]
    log_p = tl.where(mass > _LEAST_MASS, tl.log(tl.maximum(mass, 1e-12)), log_density)
    log_p = tl.where(open_above, -soft_lower, log_p)
    log_p = tl.where(open_below, upper - soft_upper, log_p)

    by_density = (mass <= _LEAST_MASS) & (value >= BINS[2]) & (value <= BINS[3])
    up, low = tl.where(open_above, 1.0, below_upper), tl.where(open_below, 0.0, below_lower)
    by_place = tl.where(by_density, 1.0 - 2.0 * below_middle, 1.0 - up - low)
    by_width = tl.where(open_below, 1.0 - up, up * (1.0 - up) / tl.maximum(mass, _LEAST_MASS))
    by_width = tl.where(by_density, by_place / 2.0, by_width)
    by_log_scale = lower * by_place + inverse_scale * (2.0 * BINS[0]) * by_width + tl.where(by_density, 1.0, 0.0)
    return log_p, by_place * inverse_scale, tl.where(raw_log_scale < _MIN_LOG_SCALE, 0.0, by_log_scale)


@triton.jit  # type: ignore[untyped-decorator]
def _softmax(logits: tl.tensor) -> tl.tensor:
    """Softmax over the lanes, and its logarithm: (P, L) each."""
    below = logits - tl.max(logits, 1)[:, None]
    total = tl.sum(tl.exp(below), 1)[:, None]
    return tl.exp(below) / total, below - tl.log(total)


@triton.jit  # type: ignore[untyped-decorator]
def _logistic(x: tl.tensor) -> tl.tensor:
    """σ(x) and log(1 + exp x). The exponent is never positive, so nothing overflows."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small), tl.maximum(x, 0.0) + tl.log(1.0 + small)


@triton.jit  # type: ignore[untyped-decorator]
def _tanh(x: tl.tensor) -> tl.tensor:
    """Tanh of x, and its derivative 1 − tanh² x."""
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x >= 0, size, -size), 4.0 * small / ((1.0 + small) * (1.0 + small))
