"""The information part of an evaluation: every quantity at every level, and what it cannot be measured on."""

import pytest
from measured_pixels import measuring_of, task_of
from refusals import refused
from torch import Tensor

from vdvae_lr.evaluation.mutual_information import measure_mutual_information
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.evaluation.sections import measure_passes
from vdvae_lr.evaluation.task import SectionSettings
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World

RECOVERED = ["recovered_mean_image", "recovered_sampled_image", "recovered_rounded_mean_image"]
LOSSES = ["lr_information", "lr_nll", "lr_standardised", "lr_raw", "lr_raw_mean_image"]
SHARES = [f"{name}_r2_{image}" for image in ("sampled_image", "mean_image") for name in ("latent", "innovation")]
MUTUAL = [f"mutual_information{suffix}" for suffix in ("", "_ceiling", "_set", "_set_ceiling")]
WITH_PARTS = {*RECOVERED, *LOSSES, *SHARES, "information_from_samples", "mutual_information", "mutual_information_set"}


def information(model: VDVAE, before: VDVAE | None, pixels: Tensor, world: World, **settings: int) -> list[Quantity]:
    task = task_of(model, measuring_of(pixels, world), before, **settings)
    found = [*measure_passes(task).quantities, *measure_mutual_information(task).quantities]
    return found[[quantity.key for quantity in found].index("information_from_samples") :]


def test_everything_is_measured_at_every_level(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = information(small_model, None, pixels, world, mixture_batch=3, mixture_images=2)
    assert [one.key for one in found] == ["information_from_samples", *RECOVERED, *LOSSES, *SHARES, *MUTUAL]
    assert {one.key for one in found if len(one.groups) == 5 and list(one.resolutions) == [1, 4, 8]} == WITH_PARTS
    assert all(one.total is not None and one.title for one in found)
    squares = {"lr_standardised", "lr_raw", "lr_raw_mean_image"}
    for one in found:
        assert one.unit == ("" if one.key in SHARES else "squares/dim" if one.key in squares else "nats/dim"), one.key


def test_the_model_itself_as_before_reads_the_same(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = information(small_model, small_model, pixels, world, mixture_batch=0, mixture_images=0)
    by_key = {one.key: one for one in found}
    names = ["information_from_samples", *RECOVERED]
    assert {key for key in by_key if key.endswith("_before")} == {f"{name}_before" for name in names}
    for name in names:
        assert by_key[f"{name}_before"].total.value == pytest.approx(by_key[name].total.value, rel=1e-9)


def test_a_mixture_of_one_image_is_refused() -> None:
    with refused("mixture_batch", "is 1", "2 or more"):
        SectionSettings(mixture_batch=1)


def test_a_mixture_needs_as_many_images() -> None:
    SectionSettings(mixture_batch=7, mixture_images=100).check_enough(7)
    with refused("mixture of 8", "7 images", "lower mixture_batch"):
        SectionSettings(mixture_batch=8).check_enough(7)
