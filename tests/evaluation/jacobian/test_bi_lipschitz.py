"""Constants, ranks and bounds against whole Jacobians, and a Gaussian decoder whose divergence is known.

Shapes: B images, m image numbers, n latents of one group.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import jacrev

from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.jacobian.bi_lipschitz import (
    LatentSpectrum,
    LocalGeometry,
    bi_lipschitz,
    iterated_deviation,
    local_bi_lipschitz,
)
from vdvae_lr.evaluation.jacobian.decoder_jacobian import Jacobian
from vdvae_lr.evaluation.jacobian.spectrum import LeadingValues, LinearMap, leading_singular_values
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import Given, LatentPass
from vdvae_lr.model.noise import PassNoise, noise_key

DENSE, ITERATED = 1024, 0


def spectrum_of(values: Sequence[float], latents: int, movable: int, complete: bool = True) -> LatentSpectrum:
    return LatentSpectrum.of(latents, movable, torch.tensor(values, dtype=torch.float64), complete)


@pytest.fixture(params=[3, 1])
def passed(request: pytest.FixtureRequest, small_model: VDVAE) -> tuple[VDVAE, LatentPass]:
    """A colour and a grey model, and a pass of two images."""
    model = small_model
    if request.param == 1:
        torch.manual_seed(7)
        model = VDVAE(replace(small_model.config, image_channels=1)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    levels = torch.randint(0, 256, (2, request.param, 8, 8), generator=torch.Generator().manual_seed(1)).double()
    torch.manual_seed(2)
    return model, model.infer(levels, keep_contexts=True)


def plain_matrices(model: VDVAE, passed: LatentPass, image: int) -> tuple[list[Tensor], list[Tensor]]:
    """Raw ∂D/∂z_l (m, n) of every group, and ∂μ'_l/∂z_l (n, n) by a whole second pass with z given."""
    latents = [group.latent[image : image + 1].detach() for group in groups_of(passed)]

    def decode(*z: Tensor) -> Tensor:
        return model.top_down([Given(one) for one in z], 1).likelihood.mean()

    def reencode(image: Tensor) -> tuple[Tensor, ...]:
        features = model.encode(model.pixel_scale.levels_from_target(image))
        groups = groups_of(model.top_down([Given(one) for one in latents], 1, features))
        return tuple(group.posterior.mean.flatten() for group in groups if group.posterior is not None)

    mean = decode(*latents)
    jacobians = [part.reshape(mean.numel(), -1).detach() for part in jacrev(decode, argnums=(0, 1, 2, 3, 4))(*latents)]
    encoders = [part.flatten(1).detach() for part in jacrev(reencode)(mean.detach())]
    return jacobians, [encoder @ decoder for encoder, decoder in zip(encoders, jacobians, strict=True)]


@pytest.mark.parametrize("dense_dimensions", [DENSE, ITERATED])
def test_every_number_is_that_of_the_whole_jacobian(passed: tuple[VDVAE, LatentPass], dense_dimensions: int) -> None:
    model, one_pass = passed
    found = local_bi_lipschitz(model, one_pass, values=4, tolerance=1e-9, dense_dimensions=dense_dimensions)
    for image, result in enumerate(found):
        jacobians, composites = plain_matrices(model, one_pass, image)
        scales = [group.prior.log_scale[image].exp().flatten().detach() for group in groups_of(one_pass)]
        check(result.raw, jacobians, composites)
        scaled = [jacobian * scale for jacobian, scale in zip(jacobians, scales, strict=True)]
        similar = [c * scale / scale[:, None] for c, scale in zip(composites, scales, strict=True)]
        check(result.prior_scale, scaled, similar)


def check(found: LocalGeometry, jacobians: list[Tensor], composites: list[Tensor]) -> None:
    for spectrum, jacobian in zip(
        (*found.spectra, found.together), (*jacobians, torch.cat(jacobians, dim=1)), strict=True
    ):
        expected = torch.linalg.svdvals(jacobian)
        movable = int((jacobian != 0).any(1).sum())
        assert spectrum.latents == jacobian.shape[1]
        assert spectrum.converged
        assert spectrum.largest == pytest.approx(expected[0].item(), rel=1e-8)
        leading = min(4, len(expected))
        torch.testing.assert_close(spectrum.values[:leading], expected[:leading], rtol=1e-8, atol=0)
        if spectrum.complete:
            assert spectrum.movable == movable
            assert spectrum.numerical_rank == int((expected > 1e-5 * expected[0]).sum())
            smallest = expected[min(movable, spectrum.latents) - 1].item()
            assert spectrum.smallest == pytest.approx(smallest, rel=1e-6)
        else:
            assert math.isnan(spectrum.smallest)
            assert 4 <= spectrum.numerical_rank <= int((expected > 1e-5 * expected[0]).sum())
    for deviation, converged, composite in zip(found.deviations, found.deviations_converged, composites, strict=True):
        expected = torch.linalg.matrix_norm(composite - torch.eye(len(composite)), 2).item()
        assert converged
        assert deviation == pytest.approx(expected, rel=1e-8)


def test_deviations_to_the_tolerance(small_model: VDVAE, pixels: Tensor) -> None:
    """No iteration ends at one of the many singular values near 1."""
    one_pass = small_model.infer(pixels[:1].double(), keep_contexts=True)
    _, composites = plain_matrices(small_model, one_pass, 0)
    expected = [torch.linalg.matrix_norm(c - torch.eye(len(c)), 2).item() for c in composites]
    for dimensions in (DENSE, ITERATED):
        (found,) = local_bi_lipschitz(small_model, one_pass, values=1, tolerance=1e-3, dense_dimensions=dimensions)
        np.testing.assert_allclose(found.raw.deviations, expected, rtol=0, atol=1e-3)


class NearlyMinusOne:
    """J − I of a diagonal J that is 0 but in two places, by products."""

    def __init__(self, size: int, kept: Sequence[float]) -> None:
        self.point = self.value = torch.full((size,), -1.0)
        self.point[7 :: size // len(kept)] += torch.tensor(kept)

    def forward(self, vector: Tensor) -> Tensor:
        return self.point * vector

    adjoint = forward


@pytest.mark.parametrize(
    ("size", "kept", "expected"),
    [(2**20, (2.3, -0.15), 1.3), (2**12, (-0.3, 2.15), 1.3), (2**12, (0.0, 0.0), 1.0), (80, (2.3, -0.15), 1.3)],
)
def test_deviation_of_a_map_of_low_rank(size: int, kept: tuple[float, float], expected: float) -> None:
    """Among so many latents two come back: a random start would end at 1."""
    found = iterated_deviation(NearlyMinusOne(size, kept), 1e-3)
    assert found.converged
    assert found.complete == (size == 80)
    assert found.values[0] == pytest.approx(expected, rel=1e-5)


def test_large_images_have_one_graph_at_a_time(
    small_model: VDVAE, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Jacobian] = weakref.WeakSet()
    seen: list[tuple[int, int]] = []

    class Watched(Jacobian):
        def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor) -> None:
            super().__init__(function, point)
            alive.add(self)
            seen.append((point.dim(), len(alive)))

    def briefly(linear_map: LinearMap, values: int, tolerance: float, **_: object) -> LeadingValues:
        return leading_singular_values(linear_map, values, tolerance, max_steps=1)

    monkeypatch.setattr("vdvae_lr.evaluation.jacobian.decoder_jacobian.Jacobian", Watched)
    monkeypatch.setattr("vdvae_lr.evaluation.jacobian.bi_lipschitz.leading_singular_values", briefly)
    one_pass = small_model.infer(pixels[:3].double(), keep_contexts=True)
    found = local_bi_lipschitz(small_model, one_pass, values=1, tolerance=0.1, dense_dimensions=0)
    assert len(found) == 3
    assert seen == [(1, 1)] * (3 * 2 * (5 + 5 + 1))  # images, units, spectra and deviations and all together


def test_constants_of_a_narrow_and_of_a_wide_group() -> None:
    narrow = spectrum_of([4.0, 2.0, 0.5], latents=3, movable=10)
    assert (narrow.largest, narrow.kappa_min, narrow.local_bi_lipschitz, narrow.numerical_rank) == (4.0, 0.5, 4.0, 3)
    weak = spectrum_of([0.5, 0.1], latents=2, movable=10)
    assert weak.local_bi_lipschitz == pytest.approx(10)
    wide = spectrum_of([4.0, 2.0, 0.5], latents=5, movable=3)
    assert (wide.smallest, wide.kappa_min, wide.local_bi_lipschitz, wide.numerical_rank) == (0.5, 0.0, math.inf, 3)
    deficient = spectrum_of([4.0, 2.0, 1e-6], latents=3, movable=10)
    assert (deficient.kappa_min, deficient.local_bi_lipschitz, deficient.numerical_rank) == (0.0, math.inf, 2)
    leading = spectrum_of([4.0, 2.0], latents=5, movable=10, complete=False)
    assert math.isnan(leading.kappa_min)
    assert math.isnan(leading.local_bi_lipschitz)
    assert math.isnan(leading.constant_bound_nats(0.1))
    nothing = spectrum_of([], latents=5, movable=0)
    assert (nothing.largest, nothing.smallest, nothing.numerical_rank, nothing.theorem_bound_nats(0.1)) == (0, 0, 0, 0)


@pytest.mark.parametrize(("image_numbers", "latents"), [(7, 4), (4, 7)])
def test_bound_is_the_divergence_of_a_linear_decoder(image_numbers: int, latents: int) -> None:
    """x = J z + σ ε: the exact KL(p(z|x)‖p(z)) less what the posterior's mean adds, which depends on x."""
    torch.manual_seed(0)
    jacobian, sigma = torch.randn(image_numbers, latents, dtype=torch.float64), 0.7
    covariance = torch.linalg.inv(torch.eye(latents, dtype=torch.float64) + jacobian.T @ jacobian / sigma**2)
    mean = covariance @ jacobian.T @ torch.randn(image_numbers, dtype=torch.float64) / sigma**2
    prior = MultivariateNormal(torch.zeros_like(mean), torch.eye(latents, dtype=torch.float64))
    exact = kl_divergence(MultivariateNormal(mean, (covariance + covariance.T) / 2), prior).item()
    singular_values = torch.linalg.svdvals(jacobian).tolist()
    whole = spectrum_of(singular_values, latents, image_numbers).theorem_bound_nats(sigma)
    assert whole == pytest.approx(exact - mean.square().sum().item() / 2, rel=1e-9)
    part = spectrum_of(singular_values[:2], latents, image_numbers, complete=False).theorem_bound_nats(sigma)
    assert 0 < part < whole < exact


def test_bound_from_the_constant() -> None:
    isometry = spectrum_of([0.25] * 3, latents=3, movable=5)
    assert isometry.local_bi_lipschitz == 4
    assert isometry.constant_bound_nats(0.3) == pytest.approx(isometry.theorem_bound_nats(0.3), rel=1e-12)
    ratio = (0.25 / 0.3) ** 2
    expected = 1.5 * (math.log(1 + ratio) - ratio / (1 + ratio))
    assert isometry.constant_bound_nats(0.3) == pytest.approx(expected, rel=1e-12)
    stretched = spectrum_of([3.0, 1.0, 0.25], latents=3, movable=5)
    assert 0 < stretched.constant_bound_nats(0.3) < stretched.theorem_bound_nats(0.3)
    assert spectrum_of([3.0, 1.0], latents=3, movable=2).constant_bound_nats(0.3) == 0


@pytest.mark.parametrize(("image_numbers", "latents"), [(9, 4), (4, 9)])
def test_the_constant_of_most_moves(image_numbers: int, latents: int) -> None:
    generator = torch.Generator().manual_seed(0)
    jacobian = 0.3 * torch.randn(image_numbers, latents, dtype=torch.float64, generator=generator)
    moves = torch.randn(latents, 20_000, dtype=torch.float64, generator=generator)
    response = torch.linalg.vector_norm(jacobian @ moves, dim=0) / torch.linalg.vector_norm(moves, dim=0)
    expected = torch.maximum(response, 1 / response).quantile(0.95).item()
    spectrum = spectrum_of(torch.linalg.svdvals(jacobian).tolist(), latents, image_numbers)
    assert spectrum.bi_lipschitz_of_most(0.95) == pytest.approx(expected, rel=0.1)
    assert spectrum.bi_lipschitz_of_most(0.95) < spectrum.local_bi_lipschitz
    assert spectrum.bi_lipschitz_of_most(0.5) < spectrum.bi_lipschitz_of_most(0.99)


def test_the_constant_of_most_moves_at_the_ends() -> None:
    assert spectrum_of([0.25] * 3, latents=3, movable=5).bi_lipschitz_of_most(0.95) == pytest.approx(4)
    assert spectrum_of([], latents=5, movable=0).bi_lipschitz_of_most(0.95) == math.inf
    assert math.isnan(spectrum_of([4.0], latents=5, movable=9, complete=False).bi_lipschitz_of_most(0.95))


@pytest.mark.parametrize("dense_dimensions", [DENSE, ITERATED])
def test_a_decoder_that_ignores_its_latents(small_model: VDVAE, small_levels: Tensor, dense_dimensions: int) -> None:
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            block.latent_projection.weight.zero_()
    passed = small_model.infer(small_levels[:1], keep_contexts=True)
    for result in local_bi_lipschitz(small_model, passed, dense_dimensions=dense_dimensions):
        for geometry in (result.raw, result.prior_scale):
            for spectrum in (*geometry.spectra, geometry.together):
                assert (spectrum.largest, spectrum.numerical_rank, spectrum.theorem_bound_nats(0.1)) == (0, 0, 0)
                assert spectrum.converged
            np.testing.assert_allclose(geometry.deviations, 1, rtol=1e-12)


def test_plain_call_has_the_draws_of_the_bound(small_model: VDVAE, pixels: Tensor) -> None:
    noise = PassNoise(small_model, 2, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key("evaluate", 6, index) for index in (5, 2)])
    passed = small_model.infer(pixels[[5, 2]].double(), noise.posterior, keep_contexts=True)
    expected = local_bi_lipschitz(small_model, passed)
    found = bi_lipschitz(small_model, pixels[[5, 2]], seed=6, examples=[5, 2])
    for one, other in zip(found, expected, strict=True):
        assert one.raw.together.largest == pytest.approx(other.raw.together.largest, rel=1e-9)


def test_models_without_a_geometry_are_refused(small_model: VDVAE, pixels: Tensor) -> None:
    with torch.no_grad():
        small_model.decoder.blocks[2].prior.expand.bias[3:6] = -1e4  # log-scales of three channels
    with pytest.raises(UnmeasurableError, match="latent group 2 has a scale of 0"):
        bi_lipschitz(small_model, pixels[:1])
    with torch.no_grad():
        small_model.mixture_output.bias[0] = math.nan
    with pytest.raises(UnmeasurableError, match="images are not finite"):
        bi_lipschitz(small_model, pixels[:1])


@pytest.mark.parametrize("dense_dimensions", [DENSE, ITERATED])
def test_derivatives_that_are_not_finite_are_refused(small_model: VDVAE, dense_dimensions: int) -> None:
    sample = small_model.generate(1, keep_contexts=True)
    with torch.no_grad():
        small_model.decoder.blocks[0].posterior.expand.weight[0] = math.nan  # D(z) needs no posterior
    with pytest.raises(UnmeasurableError, match="derivatives of the model are not finite"):
        local_bi_lipschitz(small_model, sample, dense_dimensions=dense_dimensions)
