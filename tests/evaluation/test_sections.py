"""All sections together: what they are given, what is left out, what is refused before any work, and any world."""

import json
import math
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from plain_vae import PlainConfig, PlainVAE
from refusals import refused
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation import sections
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.evaluation.sections import measure_passes, measure_sections
from vdvae_lr.evaluation.task import Section, SectionSettings, Task
from vdvae_lr.hub.pretrained import VDVAE, ShallowVAE
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.processes.world import World

LITTLE = SectionSettings(
    mixture_batch=3,
    mixture_images=4,
    importance_images=2,
    importance_draws=2,
    gap_images=1,
    jacobian_images=1,
    jacobian_values=2,
    jacobian_tolerance=1e-6,
    noise_images=2,
    noise_variances=(0.3,),
)


def measuring_of(pixels: Tensor, world: World, batch: int = 3, started: list[str] | None = None) -> Measuring:
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def track(items: Iterable[Any], total: int, what: str) -> Iterable[Any]:
        if started is not None:
            started.append(what)
        return items

    source = ArraySource(images, all_rows(images), "images")
    return Measuring(source, len(images), batch, 0, world, track)


def numbers(findings: Findings) -> dict[str, float]:
    """Every number by where it stands."""
    found: dict[str, float] = {}
    for quantity in findings.quantities:
        places = {"total": quantity.total, **{f"at {level}": part for level, part in quantity.resolutions.items()}}
        places |= {f"group {number}": part for number, part in enumerate(quantity.groups)}
        for place, part in places.items():
            if part is not None:
                found[f"{quantity.key}, {place}"] = part.value
                found[f"{quantity.key}, {place}, error"] = (
                    math.nan if part.standard_error is None else part.standard_error
                )
        found |= {f"{quantity.key}, image {number}": value for number, value in enumerate(quantity.by_image)}
    return found


def test_values_by_image_give_the_total_and_its_error(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measure_sections(Task(small_model, small_model, measuring_of(pixels, world), LITTLE))
    kept = {quantity.key: quantity for quantity in found.quantities if quantity.by_image}
    assert {"negative_elbo", "rate", "distortion", "information_from_samples", "information_from_samples_before"} < set(
        kept
    )
    assert {"noise_rms_raw_0.3", "noise_ssim_prior_scale_0.3", "noise_band_1_raw_0.3"} < set(kept)
    for quantity in kept.values():
        total, values = quantity.total, quantity.by_image
        assert total is not None and total.standard_error is not None and len(values) == total.images
        assert statistics.fmean(values) == pytest.approx(total.value)
        assert statistics.stdev(values) / math.sqrt(len(values)) == pytest.approx(total.standard_error)


def test_all_sections_agree_in_any_world(
    small_model: VDVAE, pixels: Tensor, in_worlds: Callable[..., list[Findings]]
) -> None:
    torch.manual_seed(1)
    before = VDVAE(small_model.config).double()

    def measure(world: World) -> Findings:
        return measure_sections(Task(small_model, before, measuring_of(pixels, world), LITTLE))

    (alone,) = in_worlds(1, measure)
    expected = numbers(alone)
    keys = [quantity.key for quantity in alone.quantities]
    assert len(keys) == len(set(keys))
    assert json.loads(json.dumps(alone.details)) == alone.details
    assert {
        "negative_elbo",
        "active_channels",
        "largest_singular_value",
        "information_from_samples",
        "posterior_gap",
    } <= set(keys)
    for size in (2, 3):
        for found in in_worlds(size, measure):
            assert numbers(found) == pytest.approx(expected, rel=1e-6, abs=1e-12, nan_ok=True)
            assert (found.notes, found.inputs is not None) == (alone.notes, True)


def test_every_section_measures_another_kind_of_vae(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    """One group, no contexts, and a Gaussian likelihood: no part of it is a VDVAE's."""
    torch.manual_seed(0)
    other, before = (PlainVAE(PlainConfig()).double() for _ in range(2))
    grey = pixels[:, :1, :4, :4]
    found = measure_sections(Task(other, before, measuring_of(grey, world), LITTLE))
    known = measure_sections(Task(small_model, small_model, measuring_of(pixels, world), LITTLE))
    keys, known_keys = ([re.sub(r"band_\d+", "band", q.key) for q in each.quantities] for each in (found, known))
    assert list(dict.fromkeys(keys)) == list(dict.fromkeys(known_keys))  # but for the number of bands
    assert all(math.isfinite(q.total.value) for q in found.quantities if q.total and q.key != "local_bi_lipschitz")
    assert not any(note.startswith("Left out") for note in found.notes)
    by_key = {quantity.key: quantity.total for quantity in found.quantities}
    rates = read_pass_rates(other, grey)
    assert by_key["rate"] is not None
    assert by_key["rate"].value == pytest.approx(rates.mean().item() / other.dimensions, rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"refinement_steps": 2},
        {"decoder": "brenier", "inverse_lipschitz": 0.2, "convex_units": 8, "convex_image_units": 8},
        {"likelihood": "optimal"},
        {"likelihood": "bernoulli"},
    ],
    ids=["VAE", "SA-VAE", "IL-LIDVAE", "optimal", "bernoulli"],
)
def test_every_section_measures_the_shallow_vaes(changes: dict[str, Any], pixels: Tensor, world: World) -> None:
    torch.manual_seed(0)
    config = ShallowConfig(image_size=8, latents=3, encoder_channels="4", **changes)
    model, before = (ShallowVAE(config).double().eval() for _ in range(2))
    grey = pixels[:, :1, :8, :8]
    settings = replace(LITTLE, reader_iterations=2, reader_batch=4)
    found = measure_sections(Task(model, before, measuring_of(grey, world), settings))
    totals = {quantity.key: quantity.total.value for quantity in found.quantities if quantity.total}
    assert {key for key, value in totals.items() if not math.isfinite(value)} == set()
    assert not any(note.startswith("Left out") for note in found.notes)
    assert {"information_from_samples_fresh", "posterior_gap", "theorem_bound", "noise_rms_raw_0.3"} <= totals.keys()
    assert totals["kappa_min"] > 0  # fewer latents than pixels
    if changes.get("decoder") == "brenier":
        assert totals["kappa_min"] >= 2 * 0.2**2  # each map by L, and pixels on [−1, 1] are twice those on [0, 1]


def read_pass_rates(model: PlainVAE, pixels: Tensor) -> Tensor:
    """KL(q(z|x)‖p(z)) of each image with torch's own Gaussians: (B,)."""
    posterior = model.encode(pixels.double())
    q = Normal(posterior.mean.detach(), posterior.log_scale.detach().exp())
    return kl_divergence(q, Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean))).flatten(1).sum(1)


NOISE, SPECTRA = (Findings([Quantity(key, key, "")]) for key in ("noise_key", "largest"))
STANDING_IN = (NOISE, replace(SPECTRA, details={"spectra": [1.0]}, notes=["A note."]))
"""What the expensive sections find in some tests."""


@pytest.fixture
def use_sections(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Measure the passes, and then what these sections find."""

    def use(*others: Section) -> None:
        monkeypatch.setattr(sections, "SECTIONS", (measure_passes, *others))

    return use


def standing_in() -> list[Section]:
    return [lambda task, found=found: found for found in STANDING_IN]  # type: ignore[misc]


def test_what_all_sections_find_comes_together(
    small_model: VDVAE, pixels: Tensor, world: World, use_sections: Callable[..., None]
) -> None:
    use_sections(*standing_in())
    found = measure_sections(Task(small_model, small_model, measuring_of(pixels, world), LITTLE))
    assert {"rate", "noise_key", "largest"} <= {quantity.key for quantity in found.quantities}
    assert (found.details, found.notes) == ({"spectra": [1.0]}, ("A note.",))
    assert found.inputs is not None


def test_a_count_of_zero_leaves_a_section_out(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    counts = ("mixture_batch", "mixture_images", "importance_images", "gap_images", "jacobian_images", "noise_images")
    nothing = SectionSettings(**dict.fromkeys(counts, 0))
    found = measure_sections(Task(small_model, None, measuring_of(pixels, world), nothing))
    passes = measure_passes(Task(small_model, None, measuring_of(pixels, world), LITTLE))
    assert [quantity.key for quantity in found.quantities] == [quantity.key for quantity in passes.quantities]
    assert (found.details, found.notes) == ({}, ())


def test_the_threshold_is_used(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    shares = []
    for threshold in (1e-30, 1e30):
        settings = SectionSettings(active_threshold=threshold)
        found = measure_passes(Task(small_model, None, measuring_of(pixels, world), settings))
        shares += [
            quantity.total.value for quantity in found.quantities if quantity.key == "active_latents" and quantity.total
        ]
    assert shares == [100, 0]


def test_impossible_tasks_are_refused_before_any_work(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    started: list[str] = []
    with refused("mixture", "7 images", "evaluate on more"):
        measure_sections(Task(small_model, None, measuring_of(pixels, world, started=started), SectionSettings()))
    with refused("1 image", "a variance over images needs 2", "evaluate on more"):
        measure_sections(Task(small_model, None, measuring_of(pixels[:1], world, started=started), LITTLE))
    with refused("no latent group has resolution 5x5", "groups 0 to 4", ""):
        unknown = replace(LITTLE, noise_groups="5x5")
        measure_sections(Task(small_model, None, measuring_of(pixels, world, started=started), unknown))
    assert started == []


def test_no_image_is_refused(pixels: Tensor, world: World) -> None:
    with refused("no images", "to evaluate on", "choose a split"):
        measuring_of(pixels[:0], world)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("content_dimensions", -1, "content_dimensions is -1; it must be 0 or more"),
        ("mixture_images", -1, "mixture_images is -1"),
        ("importance_draws", 0, "importance_draws is 0; it must be 1 or more"),
        ("jacobian_values", 0, "jacobian_values is 0; it must be 1 or more"),
        ("active_threshold", 0.0, "active_threshold is 0.0; it must be positive"),
        ("active_threshold", math.nan, "active_threshold is nan; it must be positive"),
        ("jacobian_tolerance", -1.0, "jacobian_tolerance is -1.0; it must be positive"),
        ("noise_variances", (0.3, -0.1), "noise variance is -0.1"),
        ("noise_variances", (0.3, 0.3), "noise_variances are .*; name each once"),
        ("noise_units", ("raw", "raw"), "noise_units are .*; name each once"),
        ("noise_units", (), "noise_units is empty; name raw or prior_scale"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SectionSettings(**{name: value})


def test_what_a_model_does_not_allow_is_left_out_with_a_note(
    small_model: VDVAE, pixels: Tensor, world: World, use_sections: Callable[..., None]
) -> None:
    def refuse(task: Task) -> Findings:
        raise UnmeasurableError("the prior of group 1 has no width.")

    use_sections(refuse, *standing_in())
    found = measure_sections(Task(small_model, None, measuring_of(pixels, world), LITTLE))
    assert "Left out: the prior of group 1 has no width." in found.notes
    assert {"rate", "noise_key", "largest"} <= {quantity.key for quantity in found.quantities}


def test_a_mistake_in_a_section_is_no_note(
    small_model: VDVAE, pixels: Tensor, world: World, use_sections: Callable[..., None]
) -> None:
    def refuse(task: Task) -> Findings:
        raise InputError("an image cannot be read.")

    use_sections(refuse, *standing_in())
    with refused("an image cannot be read", "", ""):
        measure_sections(Task(small_model, None, measuring_of(pixels, world), LITTLE))


def test_caveats_of_importance_weights_reach_the_reader(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measure_sections(Task(small_model, None, measuring_of(pixels, world), LITTLE))
    assert any(note.startswith("Importance weights: 2 draws an image are worth") for note in found.notes)


def test_numbers_that_are_none_are_spoken_of() -> None:
    sound, none = Measurement(1.0, None, 3), Measurement(math.nan, None, 3)
    quantities = [
        Quantity("rate", "", "", sound, (sound, sound)),
        Quantity("r2", "", "", none, (none, sound, none)),
        Quantity("bound", "", "", none),
        Quantity("lipschitz", "", "", Measurement(math.inf, None, 3)),
    ]
    (note,) = Findings(quantities).without_value()
    assert note == "NaN, and null in the JSON file: r2 (groups 0 and 2); bound (in total)."
    assert Findings(quantities[:1]).without_value() == []
