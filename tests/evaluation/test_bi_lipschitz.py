"""Constants, ranks and bounds against whole Jacobians, and a Gaussian decoder whose divergence is known.

Shapes: B images, m image numbers, n latents of one group.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import jacrev

from vdvae_lr.datasets.sources import ArraySource
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.bi_lipschitz import LocalGeometry, bi_lipschitz, local_bi_lipschitz
from vdvae_lr.evaluation.bi_lipschitz_section import measure_bi_lipschitz
from vdvae_lr.evaluation.latent_spectrum import LatentSpectrum, bound_from_constant_nats
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.model.decoder import Given, TopDownPass
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.model.vae import VDVAE

Measured = tuple[list[Quantity], dict[str, list[dict[str, object]]], list[str]]
DENSE, ITERATED = 1024, 0


def spectrum_of(values: Sequence[float], latents: int, movable: int, complete: bool = True) -> LatentSpectrum:
    return LatentSpectrum.of(latents, movable, torch.tensor(values, dtype=torch.float64), complete)


def measuring(pixels: Tensor, world: World, batch: int = 3, seed: int = 4) -> Measuring:
    source = ArraySource(pixels.permute(0, 2, 3, 1).numpy(), np.arange(len(pixels)), "pixels")
    return Measuring(source, len(pixels), batch, seed, world, lambda items, total, what: items)


def by_key(found: Measured) -> dict[str, Quantity]:
    return {quantity.key: quantity for quantity in found[0]}


@pytest.fixture(params=[3, 1])
def passed(request: pytest.FixtureRequest, small_model: VDVAE) -> tuple[VDVAE, TopDownPass]:
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
    return model, model.infer(levels, keep_states=True)


def plain_matrices(model: VDVAE, passed: TopDownPass, image: int) -> tuple[list[Tensor], list[Tensor]]:
    """Raw ∂D/∂z_l (m, n) of every group, and ∂μ'_l/∂z_l (n, n) by a whole second pass with z given."""
    latents = [group.latent[image : image + 1].detach() for group in passed.groups]

    def decode(*z: Tensor) -> Tensor:
        return model.likelihood(model.top_down([Given(one) for one in z], 1).output).mean()

    def reencode(image: Tensor) -> tuple[Tensor, ...]:
        features = model.encode(model.pixel_scale.levels_from_target(image))
        groups = model.top_down([Given(one) for one in latents], 1, features).groups
        return tuple(group.posterior.mean.flatten() for group in groups if group.posterior is not None)

    mean = decode(*latents)
    jacobians = [part.reshape(mean.numel(), -1).detach() for part in jacrev(decode, argnums=(0, 1, 2, 3, 4))(*latents)]
    encoders = [part.flatten(1).detach() for part in jacrev(reencode)(mean.detach())]
    return jacobians, [encoder @ decoder for encoder, decoder in zip(encoders, jacobians, strict=True)]


@pytest.mark.parametrize("dense_dimensions", [DENSE, ITERATED])
def test_every_number_is_that_of_the_whole_jacobian(passed: tuple[VDVAE, TopDownPass], dense_dimensions: int) -> None:
    model, one_pass = passed
    found = local_bi_lipschitz(model, one_pass, values=4, tolerance=1e-9, dense_dimensions=dense_dimensions)
    for image, result in enumerate(found):
        jacobians, composites = plain_matrices(model, one_pass, image)
        scales = [group.prior.log_scale[image].exp().flatten().detach() for group in one_pass.groups]
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
    assert bound_from_constant_nats(3, 4.0, 0.3) == pytest.approx(expected, rel=1e-12)
    stretched = spectrum_of([3.0, 1.0, 0.25], latents=3, movable=5)
    assert 0 < stretched.constant_bound_nats(0.3) < stretched.theorem_bound_nats(0.3)
    assert spectrum_of([3.0, 1.0], latents=3, movable=2).constant_bound_nats(0.3) == 0


@pytest.mark.parametrize("dense_dimensions", [DENSE, ITERATED])
def test_a_decoder_that_ignores_its_latents(small_model: VDVAE, small_levels: Tensor, dense_dimensions: int) -> None:
    with torch.no_grad():
        for block in small_model.decoder.blocks:
            block.latent_projection.weight.zero_()
    passed = small_model.infer(small_levels, keep_states=True)
    for result in local_bi_lipschitz(small_model, passed, dense_dimensions=dense_dimensions):
        for geometry in (result.raw, result.prior_scale):
            for spectrum in (*geometry.spectra, geometry.together):
                assert (spectrum.largest, spectrum.numerical_rank, spectrum.theorem_bound_nats(0.1)) == (0, 0, 0)
                assert spectrum.converged
            np.testing.assert_allclose(geometry.deviations, 1, rtol=1e-12)


def test_plain_call_has_the_draws_of_the_bound(small_model: VDVAE, pixels: Tensor) -> None:
    noise = PassNoise(small_model, 2, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key("evaluate", 6, index) for index in (5, 2)])
    passed = small_model.infer(pixels[[5, 2]].double(), noise.posterior, keep_states=True)
    expected = local_bi_lipschitz(small_model, passed)
    found = bi_lipschitz(small_model, pixels[[5, 2]], seed=6, examples=[5, 2])
    for one, other in zip(found, expected, strict=True):
        assert one.raw.together.largest == pytest.approx(other.raw.together.largest, rel=1e-9)


def test_section_averages_over_images(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    quantities, details, notes = measure_bi_lipschitz(
        small_model, measuring(pixels, world), images=2, values=5, tolerance=1e-6
    )
    found = {quantity.key: quantity for quantity in quantities}
    noise = PassNoise(small_model, 7, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key("evaluate", 4, index) for index in range(7)])
    all_passed = small_model.infer(pixels.double(), noise.posterior)
    residual = small_model.likelihood(all_passed.output).mean() - pixels.double() / 127.5 + 1
    sigma = residual.square().mean().sqrt().item()
    assert found["decoder_sigma"].total is not None
    assert found["decoder_sigma"].total.value == pytest.approx(sigma, rel=1e-9)
    assert found["decoder_sigma"].total.images == 7
    passed = small_model.infer(pixels[:2].double(), [draw[:2] for draw in noise.posterior], keep_states=True)
    noise = PassNoise(small_model, 2, torch.device("cpu"), prior=True, image=False)
    noise.draw_rows([noise_key("bi-Lipschitz", 4, index) for index in range(2)])
    assert noise.prior is not None
    for suffix, one_pass in (("", passed), ("_prior_samples", small_model.generate(2, noise.prior, keep_states=True))):
        results = local_bi_lipschitz(small_model, one_pass, tolerance=1e-6)
        for key, expected in expectations([one.prior_scale for one in results], sigma).items():
            quantity = found[key + suffix]
            parts = [*quantity.groups, *([quantity.total] if quantity.total else [])]
            assert len(parts) == expected.shape[1] or key == "composite_deviation_prior_scale"
            for part, values in zip(parts, expected.T, strict=True):
                assert part.value == pytest.approx(values.mean(), rel=1e-5)
                if np.isfinite(values).all():
                    assert part.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(2), rel=1e-3, abs=1e-9)
                assert part.images == 2
        raw = found[f"largest_singular_value{suffix}"].groups[3].value
        assert raw == pytest.approx(np.mean([one.raw.spectra[3].largest for one in results]), rel=1e-9)
        assert found[f"clamped_share{suffix}"].total is not None
    check_details(details, found)
    assert any("0 by rank" in note for note in notes)


def expectations(geometries: list[LocalGeometry], sigma: float) -> dict[str, np.ndarray]:
    """By key: (images, parts)."""

    def table(read: Callable[[LatentSpectrum], float]) -> np.ndarray:
        return np.array([[read(s) for s in (*one.spectra, one.together)] for one in geometries])

    return {
        "largest_singular_value_prior_scale": table(lambda s: s.largest),
        "smallest_singular_value_prior_scale": table(lambda s: s.smallest),
        "numerical_rank_prior_scale": table(lambda s: s.numerical_rank),
        "kappa_min_prior_scale": table(lambda s: s.kappa_min),
        "local_bi_lipschitz_prior_scale": table(lambda s: s.local_bi_lipschitz),
        "theorem_bound": table(lambda s: s.theorem_bound_nats(sigma) / 192),
        "constant_bound": table(lambda s: s.constant_bound_nats(sigma) / 192),
        "composite_deviation_prior_scale": np.array([one.deviations for one in geometries]),
    }


def check_details(details: dict[str, list[dict[str, object]]], found: dict[str, Quantity]) -> None:
    entries = json.loads(json.dumps(details, allow_nan=False))["spectra"]
    assert len(entries) == 2 * 2 * 2 * 6  # latents of, image, unit, part
    chosen = [
        entry
        for entry in entries
        if (entry["of"], entry["unit"], entry["group"]) == ("prior_samples", "prior_scale", None)
    ]
    assert [entry["example"] for entry in chosen] == [0, 1]
    assert all(len(entry["singular_values"]) == 5 and entry["local_bi_lipschitz"] is None for entry in chosen)
    total = found["largest_singular_value_prior_scale_prior_samples"].total
    assert total is not None
    assert np.mean([entry["singular_values"][0] for entry in chosen]) == pytest.approx(total.value, rel=1e-12)


def test_batches_and_processes_do_not_matter(
    small_model: VDVAE,
    pixels: Tensor,
    world: World,
    in_worlds: Callable[[int, Callable[[World], Measured]], list[Measured]],
) -> None:
    def measured(one: World, batch: int = 3) -> Measured:
        return measure_bi_lipschitz(small_model, measuring(pixels, one, batch), images=2, values=2, tolerance=1e-4)

    alone = measured(world, batch=1)
    for found in (*in_worlds(2, measured), *in_worlds(3, measured)):
        assert found[2] == alone[2]
        for one, other in zip(found[0], alone[0], strict=True):
            assert (one.key, one.total is None) == (other.key, other.total is None)
            for part, expected in zip(one.groups, other.groups, strict=True):
                assert part.value == pytest.approx(expected.value, rel=1e-6)
        assert [entry["example"] for entry in found[1]["spectra"]] == [e["example"] for e in alone[1]["spectra"]]


def test_iterated_section_says_what_is_not_known(
    small_model: VDVAE, pixels: Tensor, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdvae_lr.evaluation.bi_lipschitz.DENSE_DIMENSIONS", 0)
    found = measure_bi_lipschitz(small_model, measuring(pixels, world), images=1, values=2, tolerance=1e-3)
    smallest = by_key(found)["smallest_singular_value"]
    assert [math.isnan(part.value) for part in smallest.groups] == [False, False, False, True, True]
    assert smallest.groups[0].standard_error is None
    assert any("are not known" in note for note in found[2])
    assert json.dumps(found[1], allow_nan=False)


def test_none_wanted(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    assert measure_bi_lipschitz(small_model, measuring(pixels, world), images=0, values=2, tolerance=0.1) == (
        [],
        {},
        [],
    )


@pytest.mark.parametrize(("values", "tolerance"), [(0, 0.1), (2, 0.0), (2, math.nan)])
def test_bad_settings_are_refused(
    small_model: VDVAE, pixels: Tensor, world: World, values: int, tolerance: float
) -> None:
    with pytest.raises(InputError, match="must be positive"):
        measure_bi_lipschitz(small_model, measuring(pixels, world), images=1, values=values, tolerance=tolerance)


def test_models_without_a_geometry_are_refused(small_model: VDVAE, pixels: Tensor) -> None:
    with torch.no_grad():
        small_model.decoder.blocks[2].prior.expand.bias[3:6] = -1e4  # log-scales of three channels
    with pytest.raises(InputError, match="latent group 2 has a scale of 0"):
        bi_lipschitz(small_model, pixels[:1])
    with torch.no_grad():
        small_model.mixture_output.bias[0] = math.nan
    with pytest.raises(InputError, match="not finite"):
        bi_lipschitz(small_model, pixels[:1])
