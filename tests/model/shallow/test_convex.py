"""Injective decoders: convex potentials, their gradients written out, and the distances that L promises."""

import pytest
import torch

from vdvae_lr.model.shallow.convex import BrenierDecoder, BrenierMap


def brenier_map(numbers: int = 5, inverse_lipschitz: float = 0.0) -> BrenierMap:
    torch.manual_seed(1)
    return BrenierMap(numbers, 24, inverse_lipschitz).double()


def points(count: int, numbers: int = 5, size: float = 3.0) -> torch.Tensor:
    return size * torch.randn(count, numbers, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("inverse_lipschitz", [0.0, 0.4])
def test_the_map_is_the_gradient_of_its_potential(inverse_lipschitz: float) -> None:
    made, x = brenier_map(inverse_lipschitz=inverse_lipschitz), points(50).requires_grad_()
    (expected,) = torch.autograd.grad(made.potential(x).sum(), x)
    torch.testing.assert_close(made(x), expected)


def test_weights_get_the_gradient_that_autograd_finds_through_the_potential() -> None:
    made, x = brenier_map(inverse_lipschitz=0.3), points(20).requires_grad_()
    (image,) = torch.autograd.grad(made.potential(x).sum(), x, create_graph=True)
    expected = torch.autograd.grad(image.square().sum(), list(made.parameters()), allow_unused=True)
    found = torch.autograd.grad(made(x).square().sum(), list(made.parameters()), allow_unused=True)
    for name, own, theirs in zip(dict(made.named_parameters()), found, expected, strict=True):
        zeros = torch.zeros_like(made.get_parameter(name))
        torch.testing.assert_close(zeros if own is None else own, zeros if theirs is None else theirs)


def test_the_potential_is_convex_along_segments() -> None:
    made, ends = brenier_map(), points(400)
    first, second = ends.split(200)
    for share in (0.1, 0.5, 0.8):
        between = made.potential(torch.lerp(first, second, share))
        chord = torch.lerp(made.potential(first), made.potential(second), share)
        assert (between <= chord + 1e-12).all()
        assert (between < chord - 1e-6).any()


@pytest.mark.parametrize("inverse_lipschitz", [0.0, 0.2, 1.0])
def test_the_decoder_keeps_points_as_far_apart_as_promised(inverse_lipschitz: float) -> None:
    torch.manual_seed(3)
    decoder = BrenierDecoder(4, 9, 16, 24, inverse_lipschitz).double()
    first, second = points(400, 4).split(200)
    far = torch.linalg.vector_norm(decoder(first) - decoder(second), dim=1)
    assert (far > 0).all()
    least = inverse_lipschitz**2 * torch.linalg.vector_norm(first - second, dim=1)
    assert (far >= least - 1e-12).all()


def test_evaluation_keeps_no_graph() -> None:
    decoder = BrenierDecoder(4, 9, 16, 24, 0.1)
    with torch.inference_mode():
        assert decoder(torch.randn(3, 4)).grad_fn is None
