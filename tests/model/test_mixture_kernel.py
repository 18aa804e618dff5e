"""The Triton kernel computes what the plain formula computes, and a mixture uses what it is given.

`interpreted_mixture_kernel.py` has the tests that need Triton and no card.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mixture_inputs import mixture_inputs
from torch import Tensor

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture

EIGHT_BIT = Bins.of_bits(8)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed; the extra dev has it on Linux x86-64",
)


@needs_triton
def test_the_interpreted_kernel_is_the_formula() -> None:
    file = Path(__file__).with_name("interpreted_mixture_kernel.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=CHECKOUT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mixture_takes_value_and_gradient_from_its_kernel() -> None:
    """Where no gradient is wanted, or one by the image, the plain formula answers."""
    parameters, image = mixture_inputs(3, 2, (2, 3, 4))
    parameters.requires_grad_()

    def kernel(numbers: Tensor, pixels: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
        assert pixels is image and bins is EIGHT_BIT
        return torch.full((2, 3, 4), 5.0), torch.full_like(numbers, 3.0)

    mixture = LogisticMixture(parameters, 3, EIGHT_BIT, kernel)
    log_prob = mixture.log_prob(image)
    assert (log_prob == 5).all()
    (2 * log_prob).sum().backward()
    assert parameters.grad is not None and (parameters.grad == 6).all()
    with torch.no_grad():
        assert not (mixture.log_prob(image) == 5).any()


@needs_triton
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")
@pytest.mark.parametrize(("channels", "components"), [(3, 10), (1, 3)])
def test_the_compiled_kernel_is_the_formula(channels: int, components: int) -> None:
    from vdvae_lr.model.mixture_kernel import with_slopes

    parameters, image = (values.cuda() for values in mixture_inputs(channels, components, (2, 33, 37)))
    found = with_slopes(parameters, image, EIGHT_BIT)
    expected = LogisticMixture(parameters, channels, EIGHT_BIT).with_slopes(image)
    for ours, exact in zip(found, expected, strict=True):
        assert torch.allclose(ours, exact, rtol=1e-7, atol=1e-7)
