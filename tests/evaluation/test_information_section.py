"""The information part as a whole: what it measures, in which order, and what it refuses before any work."""

from dataclasses import replace

import pytest
import torch
from call_counter import count_calls
from measured_pixels import measuring_of
from refusals import refused
from torch import Tensor

from vdvae_lr.evaluation.information_section import check_information, measure_information
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World

RECOVERED = ["recovered_mean_image", "recovered_sampled_image", "recovered_rounded_mean_image"]
LOSSES = ["lr_information", "lr_nll", "lr_standardised", "lr_raw", "lr_raw_mean_image"]
SHARES = [f"{name}_r2_{image}" for image in ("sampled_image", "mean_image") for name in ("latent", "innovation")]
MUTUAL = [f"mutual_information{suffix}" for suffix in ("", "_ceiling", "_set", "_set_ceiling")]
WITH_PARTS = {*RECOVERED, *LOSSES, *SHARES, "information_from_samples", "mutual_information", "mutual_information_set"}


def test_everything_is_measured_at_every_level(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measure_information(
        small_model, measuring_of(pixels, world), before=None, mixture_batch=3, mixture_images=2
    )
    assert [one.key for one in found] == ["information_from_samples", *RECOVERED, *LOSSES, *SHARES, *MUTUAL]
    assert {one.key for one in found if len(one.groups) == 5 and list(one.resolutions) == [1, 4, 8]} == WITH_PARTS
    assert all(one.total is not None and one.title for one in found)
    squares = {"lr_standardised", "lr_raw", "lr_raw_mean_image"}
    for one in found:
        assert one.unit == ("" if one.key in SHARES else "squares/dim" if one.key in squares else "nats/dim"), one.key


def test_the_model_itself_as_before_reads_the_same(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measure_information(
        small_model, measuring_of(pixels, world), before=small_model, mixture_batch=0, mixture_images=0
    )
    by_key = {one.key: one for one in found}
    names = ["information_from_samples", *RECOVERED]
    assert {key for key in by_key if key.endswith("_before")} == {f"{name}_before" for name in names}
    for name in names:
        assert by_key[f"{name}_before"].total.value == pytest.approx(by_key[name].total.value, rel=1e-9)


@pytest.mark.parametrize(
    ("mixture_batch", "mixture_images", "words"),
    [
        (8, 0, ("mixture of 8", "7 images", "lower mixture_batch")),
        (1, 0, ("mixture_batch", "is 1", "2 or more")),
        (-1, 0, ("mixture_batch", "is -1", "2 or more")),
        (2, -1, ("mixture_images", "is -1", "0 or more")),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(
    small_model: VDVAE,
    pixels: Tensor,
    world: World,
    mixture_batch: int,
    mixture_images: int,
    words: tuple[str, str, str],
) -> None:
    calls = count_calls(small_model.decoder)
    measuring = measuring_of(pixels, world)
    with refused(*words):
        check_information(measuring, mixture_batch, mixture_images)
    with refused(*words):
        measure_information(
            small_model, measuring, before=None, mixture_batch=mixture_batch, mixture_images=mixture_images
        )
    assert calls.count == 0


def test_as_many_images_as_a_mixture_takes_are_enough(pixels: Tensor, world: World) -> None:
    check_information(measuring_of(pixels, world), 7, 100)


def test_another_architecture_before_is_refused(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    with torch.device("meta"):
        wider = VDVAE(replace(small_model.config, width=16))
    calls = count_calls(small_model.decoder)
    with refused("before", "width", "one architecture"):
        measure_information(small_model, measuring_of(pixels, world), before=wider, mixture_batch=2, mixture_images=0)
    assert calls.count == 0
