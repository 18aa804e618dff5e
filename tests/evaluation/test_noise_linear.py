"""The noise response of a linear decoder in closed form: by spatial scale, in one group alone, per active latent."""

import math

import pytest
import torch
from measured_pixels import measuring_of, task_of
from orthogonal_vae import BAND_OF_LATENT, OrthogonalConfig, OrthogonalVAE
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.noise_response import RESPONSE_NOISE
from vdvae_lr.evaluation.noise_section import measure_noise, noise_bands
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.evaluation.task import NoiseUnit
from vdvae_lr.processes.world import World

IMAGES, SEED, VARIANCE = 5, 3, 0.3
GROUPS = (slice(0, 2), slice(2, 6))
ACTIVE = torch.tensor([True, False, True, False, True, True])
"""Of the first group one latent; of the second the first, and the two that the decoder ignores."""


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (IMAGES, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def model() -> OrthogonalVAE:
    """Posterior means that vary by more than the threshold for the active latents, and not at all for the others."""
    model = OrthogonalVAE(OrthogonalConfig()).double()
    with torch.no_grad():
        model.encoder.weight.zero_()
        model.encoder.weight[:6] = ACTIVE[:, None] * model.patterns
    return model


def measured(model: OrthogonalVAE, pixels: Tensor, world: World, **settings: object) -> dict[str, Quantity]:
    wanted = {"noise_images": IMAGES, "noise_variances": (VARIANCE,)} | settings
    task = task_of(model, measuring_of(pixels, world, seed=SEED), **wanted)
    return {quantity.key: quantity for quantity in measure_noise(task).quantities}


def squares(model: OrthogonalVAE, unit: NoiseUnit, which: Tensor) -> Tensor:
    """The mean square change of the image by band (5 images, 3 bands, finest first), for noise in some latents (6,)."""
    draws = ExampleNoise(model, RESPONSE_NOISE, SEED).draw(range(IMAGES)).posterior
    noise = torch.cat([draw.flatten(1) for draw in draws], dim=1).double()
    scale = model.config.prior_scale if unit == "prior_scale" else 1.0
    by_latent = (noise * scale * torch.tensor(model.config.gains) * which / 2).square() * VARIANCE
    by_latent = by_latent * model.patterns.square().mean(1)
    bands = torch.tensor(BAND_OF_LATENT)
    return torch.stack([by_latent[:, bands == band].sum(1) for band in (4, 2, 1)], dim=1)


def chosen(*groups: int) -> Tensor:
    which = torch.zeros(6, dtype=torch.bool)
    for group in groups:
        which[GROUPS[group]] = True
    return which


def check_root(found: Measurement, values: Tensor) -> None:
    """`found` is the root of the mean of values (5,), with the error of the delta method."""
    assert found.value == pytest.approx(values.mean().sqrt().item(), rel=1e-6, abs=1e-12)
    error = values.std() / math.sqrt(IMAGES) / (2 * values.mean().sqrt()) if found.value > 1e-9 else torch.zeros(())
    assert found.standard_error == pytest.approx(error.item(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("unit", ["raw", "prior_scale"])
def test_bands_and_groups_are_those_of_the_formula(
    model: OrthogonalVAE, pixels: Tensor, world: World, unit: NoiseUnit
) -> None:
    found = measured(model, pixels, world)
    for index, band in enumerate((4, 2, 1)):
        quantity = found[f"noise_band_{band}_{unit}_{VARIANCE}"]
        assert quantity.total is not None
        check_root(quantity.total, squares(model, unit, chosen(0, 1))[:, index])
        for group in range(2):
            check_root(quantity.groups[group], squares(model, unit, chosen(group))[:, index])
            assert quantity.resolutions[group + 1].value == pytest.approx(quantity.groups[group].value, rel=1e-9)


def test_names_of_the_bands(model: OrthogonalVAE, pixels: Tensor, world: World) -> None:
    bands = noise_bands(measured(model, pixels, world).values())
    assert list(bands) == [("raw", "0.3"), ("prior_scale", "0.3")]
    assert [quantity.title for quantity in bands["prior_scale", "0.3"].values()] == [
        f"image RMS at {words}, latent noise 0.3, in prior's scale" for words in ("4x4 (finest)", "2x2", "1x1 (mean)")
    ]
    assert list(bands["raw", "0.3"]) == [4, 2, 1]


def test_bands_add_up_to_the_whole(model: OrthogonalVAE, pixels: Tensor, world: World) -> None:
    """The whole is the mean square over images: that of the active latents when all are, times their number."""
    found = measured(model, pixels, world, active_threshold=1e-300)
    with torch.no_grad():
        model.encoder.weight[:6] = model.patterns
    found = measured(model, pixels, world)
    for (unit, variance), bands in noise_bands(found.values()).items():
        added = sum(quantity.total.value**2 for quantity in bands.values() if quantity.total)
        whole = found[f"noise_per_active_{unit}_{variance}"].total
        assert whole is not None
        assert added == pytest.approx(6 * whole.value**2, rel=1e-12)


@pytest.mark.parametrize("unit", ["raw", "prior_scale"])
def test_noise_in_active_latents_leaves_out_the_others(
    model: OrthogonalVAE, pixels: Tensor, world: World, unit: NoiseUnit
) -> None:
    found = measured(model, pixels, world)
    each, rms = found[f"noise_per_active_{unit}_{VARIANCE}"], found[f"noise_active_rms_{unit}_{VARIANCE}"]
    for per_active, whole, groups in (
        (each.total, rms.total, (0, 1)),
        *zip(each.groups, rms.groups, ((0,), (1,)), strict=True),
    ):
        which = chosen(*groups) & ACTIVE
        values = squares(model, unit, which).sum(1)
        assert per_active is not None
        assert whole is not None
        check_root(per_active, values / int(which.sum()))
        assert whole.value == pytest.approx(values.sqrt().mean().item(), rel=1e-6)


def test_each_unit_has_its_own_active_latents(model: OrthogonalVAE, pixels: Tensor, world: World) -> None:
    """In units of a prior 100 times as wide nothing is active, and nothing is disturbed."""
    wide = OrthogonalVAE(OrthogonalConfig(prior_scale=1e6)).double()
    wide.load_state_dict(model.state_dict())
    found = measured(wide, pixels, world)
    for name in ("per_active", "active_rms"):
        raw, relative = (found[f"noise_{name}_{unit}_{VARIANCE}"] for unit in ("raw", "prior_scale"))
        assert raw.total is not None
        assert relative.total is not None
        assert raw.total.value > 0.001
        assert [one.value for one in (relative.total, *relative.groups)] == [0, 0, 0]


def test_a_group_that_the_decoder_ignores_has_no_response(model: OrthogonalVAE, pixels: Tensor, world: World) -> None:
    deaf = OrthogonalVAE(OrthogonalConfig(gains=(0.2, 0.1, 0.0, 0.0, 0.0, 0.0))).double()
    deaf.load_state_dict(model.state_dict())
    for key, quantity in measured(deaf, pixels, world).items():
        first, second = quantity.groups
        if "ssim" in key:
            assert second.value == pytest.approx(1, abs=1e-12)
        else:
            assert second.value == pytest.approx(0, abs=1e-15)
            assert first.value > 0.001 or "band_4" in key or ("per_active" in key or "band_2" in key)


def test_one_image_has_no_active_latents(model: OrthogonalVAE, pixels: Tensor, world: World) -> None:
    """A variance needs two images. All else is measured."""
    assert {key.rsplit("_", 2)[0] for key in measured(model, pixels, world, noise_images=1, noise_units=("raw",))} == {
        "noise_rms",
        "noise_ssim",
        *(f"noise_band_{band}" for band in (4, 2, 1)),
    }
