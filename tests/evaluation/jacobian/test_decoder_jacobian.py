"""Products and whole matrices against Jacobians that torch makes of plain functions, one image at a time.

Shapes: B images, m image numbers, n varied latents, N all latents, r movable image numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from closeness import relative_error
from latent_groups import groups_of
from torch import Tensor
from torch.func import jacrev

from vdvae_lr.evaluation.jacobian.decoder_jacobian import (
    Jacobian,
    decoder_jacobian,
    dense_jacobians,
    deviation_jacobian,
    deviation_norm,
    movable_numbers,
    one_image,
    units_of,
)
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import Given, LatentPass

TIGHT = 1e-10


@pytest.fixture(params=[3, 1])
def model(request: pytest.FixtureRequest, small_model: VDVAE) -> VDVAE:
    """Colour and grey, part of whose mean images is clamped."""
    made = small_model
    if request.param == 1:
        torch.manual_seed(5)
        made = VDVAE(replace(small_model.config, image_channels=1)).double()
        made.load_state_dict({k: v for k, v in small_model.state_dict().items() if "block" in k}, strict=False)
    with torch.no_grad():
        made.mixture_output.weight.mul_(3)
    return made


@pytest.fixture
def passed(model: VDVAE) -> LatentPass:
    """Two images."""
    size = (2, model.config.image_channels, 8, 8)
    levels = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(1)).double()
    torch.manual_seed(2)
    return model.infer(levels, keep_contexts=True)


def plain_decoder(model: VDVAE, latents: Sequence[Tensor]) -> Tensor:
    """D(z) of one image: (m,)."""
    return model.top_down([Given(z) for z in latents], 1).likelihood.mean().flatten()


def plain_reencoding(model: VDVAE, latents: Sequence[Tensor], given: Sequence[Tensor], group: int) -> Tensor:
    """μ'_l of D(latents) given the latents `given`, by a whole second pass: (n,)."""
    image = plain_decoder(model, latents).view(1, -1, 8, 8)
    features = model.encode(model.pixel_scale.levels_from_target(image))
    posterior = groups_of(model.top_down([Given(z) for z in given], 1, features))[group].posterior
    assert posterior is not None
    return posterior.mean.flatten()


def full_jacobian(passed: LatentPass, image: int, varied: Sequence[int], function: Callable[..., Tensor]) -> Tensor:
    """∂function(latents)/∂(the varied groups' latents), raw: (·, n)."""
    latents = [group.latent[image : image + 1].detach() for group in groups_of(passed)]

    def of(*moved: Tensor) -> Tensor:
        full = list(latents)
        for group, latent in zip(varied, moved, strict=True):
            full[group] = latent
        return function(full)

    parts = jacrev(of, argnums=tuple(range(len(varied))))(*[latents[group] for group in varied])
    return torch.cat([part.flatten(1).detach() for part in parts], dim=1)


def prior_scale(passed: LatentPass, image: int, varied: Sequence[int]) -> Tensor:
    return torch.cat([groups_of(passed)[group].prior.log_scale[image].flatten() for group in varied]).exp().detach()


@pytest.mark.parametrize("varied", [[0], [3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("in_prior_scale", [False, True])
def test_products_with_the_decoder(model: VDVAE, passed: LatentPass, varied: list[int], in_prior_scale: bool) -> None:
    for image in range(2):
        at = one_image(passed, image)
        jacobian = decoder_jacobian(model, at, units_of(at, prior_scale=in_prior_scale), varied)
        matrix = full_jacobian(passed, image, varied, lambda z: plain_decoder(model, z))
        if in_prior_scale:
            matrix = matrix * prior_scale(passed, image, varied)
        assert_products_of(jacobian, matrix)


def assert_products_of(jacobian: Jacobian, matrix: Tensor) -> None:
    right, left = (torch.randn(size, dtype=torch.float64) for size in reversed(matrix.shape))
    forward, adjoint = jacobian.forward(right), jacobian.adjoint(left)
    assert not forward.requires_grad
    assert relative_error(forward, matrix @ right) <= TIGHT
    assert relative_error(adjoint, left @ matrix) <= TIGHT


@pytest.mark.parametrize("group", [0, 2, 4])
@pytest.mark.parametrize("in_prior_scale", [False, True])
def test_products_with_the_composite_map(model: VDVAE, passed: LatentPass, group: int, in_prior_scale: bool) -> None:
    for image in range(2):
        at = one_image(passed, image)
        jacobian = deviation_jacobian(model, at, units_of(at, prior_scale=in_prior_scale), group)
        assert_products_of(jacobian, plain_deviation(model, passed, image, group, in_prior_scale))


def plain_deviation(model: VDVAE, passed: LatentPass, image: int, group: int, in_prior_scale: bool) -> Tensor:
    """J_{E∘D} − I by definition: (n, n)."""
    given = [one.latent[image : image + 1].detach() for one in groups_of(passed)]
    matrix = full_jacobian(passed, image, [group], lambda z: plain_reencoding(model, z, given, group))
    if in_prior_scale:
        scale = prior_scale(passed, image, [group])
        matrix = matrix * scale / scale[:, None]
    return matrix - torch.eye(len(matrix), dtype=torch.float64)


def test_dense_matrices(model: VDVAE, passed: LatentPass) -> None:
    clamped = 0
    for image in range(2):
        matrix = full_jacobian(passed, image, range(5), lambda z: plain_decoder(model, z))
        mean = plain_decoder(model, [group.latent[image : image + 1] for group in groups_of(passed)]).detach()
        movable = movable_numbers(mean)
        assert (matrix[~movable] == 0).all()  # what is left out of the dense matrix
        clamped += int((~movable).sum())
        decoders, encoders = dense_jacobians(model, one_image(passed, image))
        assert relative_error(decoders, matrix[movable]) <= TIGHT
        sizes = [latent[0].numel() for latent in passed.latents]
        parts = zip(decoders.split(sizes, 1), encoders.split(sizes, 1), strict=True)
        for group, (decoder, encoder) in enumerate(parts):
            for in_prior_scale in (False, True):
                scale = prior_scale(passed, image, [group]) if in_prior_scale else torch.ones(decoder.shape[1])
                found = deviation_norm(decoder, encoder, scale.double())
                expected = plain_deviation(model, passed, image, group, in_prior_scale)
                assert found == pytest.approx(torch.linalg.matrix_norm(expected, 2).item(), rel=TIGHT)
    assert 10 < clamped < 2 * model.dimensions - 10  # else the test could not tell


@pytest.mark.parametrize(("numbers", "latents"), [(6, 9), (6, 12), (6, 13), (6, 40), (1, 5)])
@pytest.mark.parametrize("rank", [1, 6])
@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_norm_of_a_deviation_of_low_rank(numbers: int, latents: int, rank: int, strength: float) -> None:
    torch.manual_seed(numbers + latents)
    decoder, encoder = (
        torch.randn(numbers, rank, dtype=torch.float64) @ torch.randn(rank, latents, dtype=torch.float64)
        for _ in range(2)
    )
    scale = torch.rand(latents, dtype=torch.float64) + 0.1
    decoder = strength * decoder
    matrix = (decoder * scale).T @ (encoder / scale) - torch.eye(latents, dtype=torch.float64)
    expected = torch.linalg.matrix_norm(matrix, 2).item()
    assert deviation_norm(decoder, encoder, scale) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("numbers", [0, 3])
def test_norm_of_a_deviation_where_nothing_comes_back(numbers: int) -> None:
    nothing = torch.zeros(numbers, 8)
    assert deviation_norm(nothing, nothing, torch.ones(8)) == 1


def test_an_image_that_cannot_move(small_model: VDVAE, small_levels: Tensor) -> None:
    with torch.no_grad():
        small_model.mixture_output.weight.zero_()
        small_model.mixture_output.bias.fill_(-2)
        small_model.mixture_output.bias[3:].view(3, 3, 3)[:, 2] = 0  # no channel leans on another
    passed = small_model.infer(small_levels, keep_contexts=True)
    decoder, encoder = dense_jacobians(small_model, one_image(passed, 0))
    assert decoder.shape == encoder.shape == (0, 483)


def test_single_precision_products_are_of_one_matrix(model: VDVAE, passed: LatentPass) -> None:
    single = model.float()
    levels = torch.randint(0, 256, (1, model.config.image_channels, 8, 8)).float()
    at = one_image(single.infer(levels, keep_contexts=True), 0)
    units = units_of(at, prior_scale=True)
    for jacobian in (decoder_jacobian(single, at, units, [1]), deviation_jacobian(single, at, units, 1)):
        right, left = torch.randn(len(jacobian.point)), torch.randn(len(jacobian.value))
        forward, adjoint = jacobian.forward(right) @ left, jacobian.adjoint(left) @ right
        assert relative_error(forward, adjoint) <= 1e-4


def test_composite_needs_kept_states(small_model: VDVAE, small_levels: Tensor) -> None:
    at = one_image(small_model.infer(small_levels), 0)
    with pytest.raises(ValueError, match="keep_contexts"):
        deviation_jacobian(small_model, at, units_of(at, prior_scale=False), 0)
