"""A reader trained afresh finds what images say, also where the model's own encoder does not; nothing more."""

import math

import pytest
import torch
from measured_pixels import measuring_of, numbers_of, task_of
from orthogonal_vae import OrthogonalConfig, OrthogonalVAE
from refusals import refused
from torch import Tensor

from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.fresh_reader import FreshReader, measure_fresh_reader, train_reader
from vdvae_lr.evaluation.information import measure_information_from_samples, measure_readers
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import SectionSettings
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World

SAMPLES = 2_000
LEARNING = {"reader_iterations": 300, "reader_batch": 64, "reader_lr": 0.03}
OTHERS = ("mixture_batch", "mixture_images", "importance_images", "gap_images", "jacobian_images", "noise_images")


def nothing() -> None:
    """No progress is shown."""


@pytest.fixture
def linear() -> OrthogonalVAE:
    """Its own encoder has never learned anything."""
    torch.manual_seed(0)
    return OrthogonalVAE(OrthogonalConfig()).double()


def of_samples(count: int) -> Tensor:
    return torch.zeros(count, 1, 4, 4, dtype=torch.uint8)


def test_finds_what_the_images_say(linear: OrthogonalVAE, world: World) -> None:
    """Within 1% of the exact posterior on the same samples, where the model's own encoder reads nonsense."""
    task = task_of(linear, measuring_of(of_samples(SAMPLES), world, batch=500), **LEARNING)
    (fresh,) = measure_fresh_reader(task).quantities
    (own,) = measure_information_from_samples(task).quantities
    assert (fresh.key, fresh.unit) == ("information_from_samples_fresh", "nats/dim")
    (exact,) = measure_readers(task, {"": ("", linear.exact_reader)}, "").quantities
    for found, best, nats in zip(fresh.groups, exact.groups, linear.information.split([2, 4]), strict=True):
        assert best.value * 0.99 < found.value < best.value * 1.001
        assert best.value == pytest.approx(nats.sum().item() / linear.dimensions, abs=4 * (best.standard_error or 0.0))
        assert found.images == SAMPLES
    assert own.total is not None
    assert own.total.value < 0


def test_finds_nothing_in_a_group_that_the_decoder_ignores(world: World) -> None:
    deaf = OrthogonalVAE(OrthogonalConfig(gains=(0.2, 0.1, 0.0, 0.0, 0.0, 0.0))).double()
    task = task_of(deaf, measuring_of(of_samples(SAMPLES), world, batch=500), **LEARNING)
    (found,) = measure_fresh_reader(task).quantities
    first, second = (group.value * deaf.dimensions for group in found.groups)
    assert first > 2
    assert abs(second) < 0.02


def test_the_scale_of_the_latents_does_not_matter(linear: OrthogonalVAE) -> None:
    """Latents a thousandth as large, decoded a thousand times as strongly, make the same images."""
    config = OrthogonalConfig(gains=tuple(1000 * gain for gain in linear.config.gains), prior_scale=0.0005)
    small = OrthogonalVAE(config).double()
    small.load_state_dict(linear.state_dict())
    learning = [
        train_reader(model, iterations=20, batch=8, lr=0.03, seed=0, tick=nothing)[1] for model in (linear, small)
    ]
    assert learning[0] == pytest.approx(learning[1], rel=1e-6)
    assert learning[0][-1] > learning[0][0]


def test_the_models_own_encoder_as_the_reader_is_the_existing_number(
    small_model: VDVAE, pixels: Tensor, world: World
) -> None:
    task = task_of(small_model, measuring_of(pixels, world))
    known = numbers_of(measure_information_from_samples(task).quantities)
    found = numbers_of(measure_readers(task, {"_own": ("", small_model.reencode)}, "").quantities)
    assert found["information_from_samples_own"] == pytest.approx(known["information_from_samples"], rel=1e-9)


def test_learning_to_read_a_hierarchy_changes_no_weight_of_the_model(small_model: VDVAE) -> None:
    before = {name: weight.clone() for name, weight in small_model.state_dict().items()}
    reader, learning = train_reader(small_model, iterations=30, batch=8, lr=0.01, seed=0, tick=nothing)
    assert all(torch.equal(weight, before[name]) for name, weight in small_model.state_dict().items())
    assert all(weight.grad is None for weight in small_model.parameters())
    assert len(learning) == 10
    assert learning[-1] > learning[0]
    again, _ = train_reader(small_model, iterations=30, batch=8, lr=0.01, seed=0, tick=nothing)
    other, _ = train_reader(small_model, iterations=30, batch=8, lr=0.01, seed=1, tick=nothing)
    assert torch.equal(again.network.weight, reader.network.weight)
    assert not torch.equal(other.network.weight, reader.network.weight)


def test_first_weights_leave_the_generator_of_others_alone(small_model: VDVAE) -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    FreshReader(small_model, 0)
    assert torch.equal(torch.randn(3), expected)


def quantities_of(model: OrthogonalVAE, world: World, **settings: int) -> list[Quantity]:
    task = task_of(model, measuring_of(of_samples(4), world), **dict.fromkeys(OTHERS, 0), **settings)
    return list(measure_sections(task).quantities)


def test_it_is_left_out_unless_it_is_asked_for(linear: OrthogonalVAE, world: World) -> None:
    keys = [quantity.key for quantity in quantities_of(linear, world)]
    asked = [quantity.key for quantity in quantities_of(linear, world, reader_iterations=2, reader_batch=3)]
    assert "information_from_samples_fresh" not in keys
    assert [key for key in asked if key not in keys] == ["information_from_samples_fresh"]


def test_what_it_learned_is_in_the_details(linear: OrthogonalVAE, world: World) -> None:
    task = task_of(linear, measuring_of(of_samples(4), world), reader_iterations=3)
    details = measure_fresh_reader(task).details["fresh_reader"]
    assert (details["unit"], len(details["learning"])) == ("nats/dim", 3)
    assert all(map(math.isfinite, details["learning"]))


@pytest.mark.parametrize(("iterations", "batch"), [(0, 4), (4, 0)])
def test_a_reader_trained_on_no_samples_is_refused(linear: OrthogonalVAE, iterations: int, batch: int) -> None:
    with refused("trained on no samples", "can read nothing", "give it"):
        train_reader(linear, iterations=iterations, batch=batch, lr=0.1, seed=0, tick=nothing)


def test_no_samples_are_refused_on_the_command_line() -> None:
    with refused("reader_batch", "is 0", "must be 1 or more"):
        SectionSettings(reader_iterations=10, reader_batch=0)


def test_a_diverged_reader_is_no_number(linear: OrthogonalVAE) -> None:
    with pytest.raises(UnmeasurableError, match="diverged; lower --reader_lr"):
        train_reader(linear, iterations=8, batch=4, lr=1e30, seed=0, tick=nothing)
