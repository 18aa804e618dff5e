"""Number formats: what is lifted to float32, what autocast changes, and that contexts restore what they found."""

import pytest
import torch

from vdvae_lr.model.precision import compute_dtype, float32_convolutions, full_precision, without_autocast

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "kept"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)]
)
def test_full_precision_lifts_half_and_keeps_the_rest(given: torch.dtype, kept: torch.dtype) -> None:
    assert full_precision(torch.ones(1, dtype=given)).dtype == kept


def test_compute_dtype_is_what_a_convolution_returns() -> None:
    layer, image = torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)
    assert compute_dtype(image) == layer(image).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_dtype(image) == layer(image).dtype == torch.bfloat16
        with without_autocast(CPU):
            assert compute_dtype(image) == layer(image).dtype == torch.float32


def test_devices_without_autocast_are_left_alone() -> None:
    shapes_only = torch.zeros(1, device="meta")
    with without_autocast(shapes_only.device):
        assert compute_dtype(shapes_only) == torch.float32


def test_tf32_is_off_only_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with float32_convolutions():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
