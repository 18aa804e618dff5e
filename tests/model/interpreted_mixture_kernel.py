"""Tests of the Triton kernel in Triton's interpreter, which runs it with numpy on a CPU.

`test_mixture_kernel.py` runs this file in a process of its own: Triton reads TRITON_INTERPRET when it is imported, and
torch may have imported it already.

Float64 shows every difference of a formula. It also runs where float32 could not tell a mistake from rounding.
"""

import pytest
import torch
from mixture_inputs import mixture_inputs
from torch import Tensor

from vdvae_lr.model import mixture_kernel
from vdvae_lr.model.logistic_mixture import MIN_LOG_SCALE, Bins, LogisticMixture

BINS = {"8 bit": Bins.of_bits(8), "1 bit": Bins.of_bits(1), "published": Bins.published_5bit()}


def branches(parameters: Tensor, image: Tensor, bins: Bins) -> set[str]:
    """The branches of the formula that some number of these takes."""
    at = LogisticMixture(parameters, image.shape[1], bins)._evaluated(image)
    below, above = (image < bins.lowest_below)[:, :, None], (image > bins.highest_above)[:, :, None]
    inner, small = ~(below | above), at.mass <= 1e-5
    found = {"mass": inner & ~small, "density": inner & small, "below": below, "above": above}
    found |= {"narrow": at.inverse_scale == torch.tensor(-MIN_LOG_SCALE).double().exp()}
    return {name for name, which in found.items() if which.any()}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("channels", "components", "bins"), [(3, 10, "8 bit"), (3, 4, "published"), (1, 3, "1 bit"), (1, 1, "8 bit")]
)
def test_the_kernel_is_the_formula(channels: int, components: int, bins: str, channels_last: bool) -> None:
    """45 pixels an image fill no block. torch's softplus is exact to 2e-9 only: above 20 it is its argument."""
    parameters, image = mixture_inputs(channels, components, (2, 5, 9))
    assert branches(parameters, image, BINS[bins]) == {"mass", "density", "below", "above", "narrow"}
    if channels_last:
        parameters, image = (values.contiguous(memory_format=torch.channels_last) for values in (parameters, image))
    log_prob, slopes = mixture_kernel.with_slopes(parameters, image, BINS[bins])
    expected, expected_slopes = LogisticMixture(parameters, channels, BINS[bins]).with_slopes(image)
    assert torch.allclose(log_prob, expected, rtol=1e-9, atol=1e-8)
    assert torch.allclose(slopes, expected_slopes, rtol=1e-8, atol=1e-9)
    assert slopes.stride() == parameters.stride()


def test_other_strides_give_the_same() -> None:
    """Numbers without a stride, the image in another layout, rows that do not follow each other."""
    parameters, image = mixture_inputs(3, 3, (1, 4, 6))
    given = parameters.expand(2, -1, -1, -1), image.expand(2, -1, -1, -1)[:, :, :, ::2]
    numbers = given[0][:, :, :, ::2]
    results = mixture_kernel.with_slopes(numbers, given[1], BINS["8 bit"])
    for ours, expected in zip(results, LogisticMixture(numbers, 3, BINS["8 bit"]).with_slopes(given[1]), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-8, atol=1e-8)


def test_nothing_is_written_beside_the_results() -> None:
    """Each result lies in a longer tensor. Where no result belongs, its 7s stay."""
    parameters, image = mixture_inputs(3, 3, (2, 3, 5))
    launch = mixture_kernel.arguments(parameters, image, BINS["8 bit"])
    around = {}
    for name in ("log_prob", "slopes"):
        result = launch[name]
        around[name] = torch.full((result.numel() + 2000,), 7.0, dtype=torch.float64)
        launch[name] = around[name][1000:-1000].view(result.shape)
    blocks = -(-launch["pixels"] // launch["P"])
    mixture_kernel.mixture_kernel[(2 * blocks,)](**launch)
    for values in around.values():
        assert (values[:1000] == 7).all()
        assert (values[-1000:] == 7).all()
        assert not (values[1000:-1000] == 7).any()


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_number_that_is_none_stays_one() -> None:
    """The skip rule must see NaN, wherever it comes from, and only in its own pixel."""
    parameters, image = mixture_inputs(3, 2, (1, 1, 20))
    for number in range(20):
        parameters[0, number, 0, number] = torch.nan
    mask = torch.arange(20) % 2 == 0
    log_prob, _ = mixture_kernel.with_slopes(
        torch.where(mask, parameters, parameters.nan_to_num()), image, BINS["8 bit"]
    )
    assert torch.equal(log_prob.isnan().flatten(), mask)
