"""All sections together: what they are given, what is left out, what is refused before any work, and any world."""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from refusals import refused
from torch import Tensor

from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation import sections
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.evaluation.sections import Findings, SectionSettings, Task, measure_sections
from vdvae_lr.hub.pretrained import VDVAE
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
    return found


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


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The expensive sections as stand-ins: what each was called with, by name."""
    seen: dict[str, Any] = {}

    def stand_in(name: str, result: Any) -> None:
        def section(*arguments: Any, **options: Any) -> Any:
            seen[name] = options
            return result

        monkeypatch.setattr(sections, f"measure_{name}", section)

    for name in ("mutual_information", "noise", "importance"):
        stand_in(name, Findings([Quantity(f"{name}_key", name, "")]))
    largest = Quantity("largest", "largest", "")
    stand_in("bi_lipschitz", Findings([largest], details={"spectra": [1.0]}, notes=["A note."]))
    return seen


def test_settings_reach_their_sections(small_model: VDVAE, pixels: Tensor, world: World, calls: dict[str, Any]) -> None:
    found = measure_sections(Task(small_model, small_model, measuring_of(pixels, world), LITTLE))
    assert calls == {
        "mutual_information": {"mixture_batch": 3, "mixture_images": 4},
        "importance": {"images": 2, "draws": 2, "gap_images": 1},
        "bi_lipschitz": {"images": 1, "values": 2, "tolerance": 1e-6},
        "noise": {
            "variances": (0.3,),
            "units": ("raw", "prior_scale"),
            "images": 2,
            "groups": (0, 1, 2, 3, 4),
            "by_group": True,
        },
    }
    assert {"mutual_information_key", "importance_key", "noise_key", "largest"} <= {q.key for q in found.quantities}
    assert (found.details, found.notes) == ({"spectra": [1.0]}, ("A note.",))
    assert found.inputs is not None


def test_a_count_of_zero_leaves_a_section_out(
    small_model: VDVAE, pixels: Tensor, world: World, calls: dict[str, Any]
) -> None:
    nothing = SectionSettings(mixture_batch=0, mixture_images=0, jacobian_images=0, noise_images=0)
    measure_sections(Task(small_model, None, measuring_of(pixels, world), nothing))
    assert calls["mutual_information"] == {"mixture_batch": 0, "mixture_images": 0}
    assert (calls["noise"]["images"], calls["bi_lipschitz"]["images"]) == (0, 0)  # which measure nothing then


def test_the_threshold_is_used(small_model: VDVAE, pixels: Tensor, world: World, calls: dict[str, Any]) -> None:
    shares = []
    for threshold in (1e-30, 1e30):
        settings = SectionSettings(mixture_batch=0, active_threshold=threshold)
        found = measure_sections(Task(small_model, None, measuring_of(pixels, world), settings))
        shares += [
            quantity.total.value for quantity in found.quantities if quantity.key == "active_latents" and quantity.total
        ]
    assert shares == [100, 0]


def test_too_few_images_are_refused_before_any_work(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    started: list[str] = []
    with refused("mixture", "7 images", "evaluate on more"):
        measure_sections(Task(small_model, None, measuring_of(pixels, world, started=started), SectionSettings()))
    with refused("1 image", "a variance over images needs 2", "evaluate on more"):
        measure_sections(Task(small_model, None, measuring_of(pixels[:1], world, started=started), LITTLE))
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
    small_model: VDVAE, pixels: Tensor, world: World, calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise UnmeasurableError("the prior of group 1 has no width.")

    monkeypatch.setattr(sections, "measure_noise", refuse)
    found = measure_sections(Task(small_model, None, measuring_of(pixels, world), LITTLE))
    assert "Left out: the prior of group 1 has no width." in found.notes
    assert {"rate", "importance_key", "largest"} <= {quantity.key for quantity in found.quantities}


def test_a_mistake_in_a_section_is_no_note(
    small_model: VDVAE, pixels: Tensor, world: World, calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise InputError("an image cannot be read.")

    monkeypatch.setattr(sections, "measure_noise", refuse)
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
    assert note == "No number, and null in the JSON file: r2 (groups 0 and 2); bound (in total)."
    assert Findings(quantities[:1]).without_value() == []
