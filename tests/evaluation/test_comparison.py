"""A comparison's numbers are those of the single measurements, and its table and JSON show them."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from measured_pixels import measuring_of, silently
from rich.console import Console
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sources import ArraySource, ImageSource, all_rows
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation import comparison
from vdvae_lr.evaluation.activity import latent_statistics
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.evaluation.comparison import check_comparable, measure_model
from vdvae_lr.evaluation.information import measure_information_from_samples
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Measurement
from vdvae_lr.evaluation.recovery import measure_recovery
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.comparison_pictures import comparison_pictures
from vdvae_lr.pictures.noise_pictures import noise_response
from vdvae_lr.processes.world import World
from vdvae_lr.report.comparison_table import ROWS, Comparison, comparison_json, comparison_table


@pytest.fixture
def source(pixels: Tensor) -> ImageSource:
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    return ArraySource(images, all_rows(images), "images")


def measuring(source: ImageSource, world: World) -> Measuring:
    return Measuring(source, examples=7, batch=3, seed=6, world=world, track=silently)


@pytest.fixture
def measured(small_model: VDVAE, source: ImageSource, world: World) -> dict[str, Measurement]:
    return measure_model(small_model, measuring(source, world))


def test_measurements_are_the_single_ones(
    small_model: VDVAE,
    pixels: Tensor,
    batches_of: Callable[..., list[Batch]],
    world: World,
    measured: dict[str, Measurement],
) -> None:
    batches = batches_of([range(7)])
    bound = evaluate_bound(small_model, batches, seed=6, world=world)
    one_batch = measuring_of(pixels, world, batch=7, seed=6)
    recovered = {quantity.key: quantity.total for quantity in measure_recovery(small_model, one_batch)}
    (own,) = measure_information_from_samples(small_model, one_batch)
    statistics = latent_statistics(small_model, batches, world=world)
    raw = noise_response(small_model, pixels, (0.3, 0.4), seed=6)
    scaled = noise_response(small_model, pixels, (0.3, 0.4), seed=6, unit="prior_scale")
    expected = {
        "negative_elbo": bound.negative_elbo,
        "rate": bound.rate,
        "distortion": bound.distortion,
        "latent_reconstruction": -recovered["recovered_sampled_image"].value,
        "recovered_mean_image": recovered["recovered_mean_image"].value,
        "information_from_samples": own.total.value,
        "active_latents": 100 * statistics.active("latents", 0.01, relative=False).share(),
        "active_latents_relative": 100 * statistics.active("latents", 0.01, relative=True).share(),
        "active_channels": 100 * statistics.active("channels", 0.01, relative=False).share(),
        "active_channels_relative": 100 * statistics.active("channels", 0.01, relative=True).share(),
        "noise_response_raw_0.3": raw.rms[0],
        "noise_response_raw_0.4": raw.rms[1],
        "noise_response_prior_scale_0.3": scaled.rms[0],
        "noise_response_prior_scale_0.4": scaled.rms[1],
    }
    assert {key: value.value for key, value in measured.items() if key != "prior_scale"} == pytest.approx(expected)
    assert {value.images for value in measured.values()} == {7}
    errors = {"negative_elbo": bound.standard_error, "information_from_samples": own.total.standard_error}
    assert {key: measured[key].standard_error for key in errors} == pytest.approx(errors)


def test_prior_scale_is_not_divided_by_dimensions(collapsed_model: VDVAE, source: ImageSource, world: World) -> None:
    measured = measure_model(collapsed_model, measuring(source, world))
    assert measured["prior_scale"].value == pytest.approx(1, rel=1e-12)
    assert measured["rate"].value == measured["latent_reconstruction"].value == 0


def test_noise_is_measured_on_the_first_images_only(
    small_model: VDVAE, pixels: Tensor, source: ImageSource, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "RESPONSE_EXAMPLES", 4)
    measured = measure_model(small_model, measuring(source, world))
    assert {key: value.images for key, value in measured.items() if value.images != 7} == {
        f"noise_response_{unit}_{variance}": 4 for unit, variance in comparison.RESPONSE_CONDITIONS
    }
    expected = noise_response(small_model, pixels[:4], (0.3,), seed=6).rms[0]
    assert measured["noise_response_raw_0.3"].value == pytest.approx(expected)


def test_processes_do_not_matter(
    small_model: VDVAE,
    source: ImageSource,
    measured: dict[str, Measurement],
    in_worlds: Callable[..., list[dict[str, Measurement]]],
) -> None:
    for found in in_worlds(2, lambda world: measure_model(small_model, measuring(source, world))):
        assert {k: v.value for k, v in found.items()} == pytest.approx({k: v.value for k, v in measured.items()})


def a_comparison(measured: dict[str, Measurement], content_dimensions: int = 0) -> Comparison:
    models = {"before": measured, "[LR]": {key: value.times(2) for key, value in measured.items()}}
    sources = {"before": "fashion", "[LR]": "runs/lr"}
    return Comparison(models, sources, "images", "test", 7, 6, 192, content_dimensions)


def test_json_holds_every_row_of_every_model(measured: dict[str, Measurement]) -> None:
    found = json.loads(comparison_json(a_comparison(measured)))
    assert list(found["rows"]) == [row.key for row in ROWS]
    assert found["rows"].keys() == {*measured, "negative_elbo_bits"}
    bits = found["rows"]["negative_elbo_bits"]["models"]["before"]["value"]
    assert bits == pytest.approx(measured["negative_elbo"].value / math.log(2))
    assert found["rows"]["rate"]["models"]["[LR]"]["value"] == 2 * measured["rate"].value
    about = {key: found[key] for key in ("dataset", "split", "examples", "seed", "sources")}
    assert about["sources"] == {"before": "fashion", "[LR]": "runs/lr"}
    assert (about["dataset"], about["split"], about["examples"], about["seed"]) == ("images", "test", 7, 6)


def test_json_of_unknown_errors_stays_json() -> None:
    measured = {row.key: Measurement(1.0, None, 2) for row in ROWS}
    text = comparison_json(a_comparison(measured))
    assert "NaN" not in text
    assert json.loads(text)["rows"]["rate"]["models"]["before"]["standard_error"] is None


def test_bound_is_also_stated_without_padding(measured: dict[str, Measurement]) -> None:
    comparison = a_comparison(measured, content_dimensions=147)
    nats = comparison.measurement("before", "negative_elbo_content")
    bits = comparison.measurement("before", "negative_elbo_content_bits")
    assert nats.value * 147 == pytest.approx(measured["negative_elbo"].value * 192)
    assert bits.value == pytest.approx(nats.value / math.log(2))
    assert nats.standard_error is not None
    assert nats.standard_error * 147 == pytest.approx((measured["negative_elbo"].standard_error or 0) * 192)
    assert {row.key for row in comparison.rows} - {row.key for row in ROWS} == {
        "negative_elbo_content",
        "negative_elbo_content_bits",
    }


def test_table_shows_values_with_errors_and_names_as_given(measured: dict[str, Measurement]) -> None:
    console = Console(width=160, markup=False)
    with console.capture() as captured:
        console.print(comparison_table(a_comparison(measured)))
    text = captured.get()
    assert "before" in text
    assert "[LR]" in text
    bound = measured["negative_elbo"]
    assert f"{bound.value:.4f} ± {bound.standard_error:.4f}" in text
    assert all(row.title in text for row in ROWS)


def test_models_that_differ_are_refused(small_model: VDVAE) -> None:
    other = VDVAE(replace(small_model.config, bits=5))
    with pytest.raises(InputError, match=r"'before' and 'LR' differ in bits \(8 and 5\)"):
        check_comparable({"before": small_model, "LR": other})
    check_comparable({"before": small_model, "LR": VDVAE(small_model.config)})


def test_pictures_have_a_row_for_each_model(small_model: VDVAE, pixels: Tensor) -> None:
    one = comparison_pictures({"a": small_model}, pixels[:2], seed=0)
    two = comparison_pictures({"a": small_model, "b": small_model}, pixels[:2], seed=0)
    assert list(one) == ["reconstructions.png", "samples.png", "noise_response.png"]
    rows = {name: round((two[name].height - one[name].height) / 66) for name in one}  # a tile of 64 and its gap
    assert rows == {"reconstructions.png": 1, "samples.png": 2, "noise_response.png": 3}
    assert torch.is_grad_enabled()
