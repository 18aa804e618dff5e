"""What the re-encoder sees of a decoded image: low-passes, their random choice, and each group's own resolution."""

from typing import Any

import pytest
import torch
from call_counter import count_calls
from plain_vae import PlainConfig, PlainVAE
from refusals import refused
from torch import Tensor
from training_runs import tiny_settings

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings, reconstruct_latents
from vdvae_lr.losses.reading import check_group_reading, cutoffs, low_passed, randomly_low_passed, read_again
from vdvae_lr.model.latent_model import LatentPass
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.training.settings import settings_for
from vdvae_lr.training.step import batch_terms

Read = tuple[VDVAE, LatentPass, Tensor]


def images(count: int = 2, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 - 1


def checkerboard(size: int, side: int) -> Tensor:
    """±1 in squares of `side` pixels: every average over a square of 2·side pixels is 0."""
    line = (torch.arange(size) // side % 2) * 2.0 - 1
    return (line[:, None] * line[None, :]).double()


@pytest.fixture
def read(small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise) -> Read:
    """The small model (groups at 1, 4 and 8), a pass with kept contexts, and an image to read."""
    passed = small_model.infer(small_levels, small_noise.posterior, keep_contexts=True)
    return small_model, passed, passed.decoded("sample", small_noise.image)


def numbers(gaussians: Any) -> list[Tensor]:
    return [torch.cat([gaussian.mean, gaussian.log_scale]) for gaussian in gaussians]


def assert_close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-10, atol=1e-12)


# ---- low-passes


@pytest.mark.parametrize(("size", "expected"), [(32, (32, 16, 8, 4, 2, 1)), (28, (28, 14, 7)), (27, (27,)), (1, (1,))])
def test_cutoffs_are_the_power_of_two_fractions(size: int, expected: tuple[int, ...]) -> None:
    assert cutoffs(size) == expected


def test_a_low_pass_keeps_what_is_coarse_and_nothing_finer() -> None:
    """An image of 4×4 squares passes at 4×4; a pattern that each of them averages out does not show."""
    coarse = images(size=4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(low_passed(coarse + 0.3 * checkerboard(8, 1), 4), coarse)
    torch.testing.assert_close(low_passed(coarse, 1), coarse.mean((2, 3), keepdim=True).expand_as(coarse))
    assert low_passed(coarse, 8) is coarse


def test_a_low_pass_hands_a_gradient_to_every_pixel_of_a_square() -> None:
    image = images().requires_grad_()
    low_passed(image, 4)[0, 0, 0, 0].backward()
    expected = torch.zeros_like(image)
    expected[0, 0, :2, :2] = 0.25
    torch.testing.assert_close(image.grad, expected)


def test_every_cutoff_is_drawn_equally_often() -> None:
    """Each image by itself: 4 of 16 even draws get each of the four resolutions of an 8×8 image, the finest first."""
    many = images(16)
    draws = (torch.arange(16) + 0.5) / 16
    seen = randomly_low_passed(many, draws.view(16, 1, 1, 1))
    expected = [low_passed(many[row : row + 1], cutoffs(8)[row // 4]) for row in range(16)]
    torch.testing.assert_close(seen, torch.cat(expected))


def test_the_largest_draw_is_the_coarsest_cutoff() -> None:
    """Its product with the number of cutoffs may round up to that number."""
    image, draw = images(1), torch.full((1, 1, 1, 1), 1 - 2**-24)
    torch.testing.assert_close(randomly_low_passed(image, draw), low_passed(image, 1))


# ---- readings


def test_a_full_reading_is_the_re_encoding(read: Read) -> None:
    model, passed, image = read
    for found, expected in zip(numbers(read_again("full", *read)), numbers(model.reencode(passed, image)), strict=True):
        assert torch.equal(found, expected)


def test_a_number_reads_the_low_passed_image(read: Read) -> None:
    model, passed, image = read
    assert_close(read_again(4, *read), model.reencode(passed, low_passed(image, 4)))


def test_a_random_reading_is_by_image(read: Read) -> None:
    model, passed, image = read
    draw = torch.tensor([0.1, 0.6]).view(2, 1, 1, 1)
    expected = model.reencode(passed, torch.cat([image[:1], low_passed(image[1:], 2)]))
    assert_close(read_again("random", *read, draw), expected)


def test_a_random_reading_without_its_draw_is_an_error(read: Read) -> None:
    with pytest.raises(ValueError, match="needs its draw"):
        read_again("random", *read)


def test_each_group_reads_at_its_resolution_and_the_encoder_runs_once_for_each(read: Read) -> None:
    model, passed, image = read
    calls = count_calls(model.encoder)
    found = read_again("group", *read)
    assert calls.count == len(set(model.resolutions)) == 3
    expected = [
        model.reencode(passed, low_passed(image, resolution))[group]
        for group, resolution in enumerate(model.resolutions)
    ]
    assert_close(found, expected)


def test_a_coarse_group_does_not_see_detail_finer_than_its_resolution(read: Read) -> None:
    model, passed, image = read
    plain = numbers(read_again("group", *read))
    detailed = numbers(read_again("group", model, passed, image + 0.2 * checkerboard(8, 1)))
    changes = [(one - other).abs().max().item() for one, other in zip(plain, detailed, strict=True)]
    for change, resolution in zip(changes, model.resolutions, strict=True):
        assert (change < 1e-9) == (resolution < 8), (change, resolution)


@pytest.mark.parametrize("reading", [4, "random", "group"])
def test_the_loss_reads_what_the_settings_say(read: Read, small_noise: PassNoise, reading: Any) -> None:
    model, passed, _ = read
    draw = torch.full((2, 1, 1, 1), 0.6)
    full, other = (
        reconstruct_latents(ObjectiveSettings(lr_reading=each), model, passed, small_noise.image, draw)
        for each in ("full", reading)
    )
    assert full.shape == other.shape
    assert (full - other).abs().min() > 1e-3


@pytest.mark.parametrize("reading", [2, "random"])
def test_a_vae_of_vectors_can_read_through_a_low_pass(reading: Any) -> None:
    torch.manual_seed(0)
    model = PlainVAE(PlainConfig())
    noise = PassNoise(model, 3, torch.device("cpu"), cutoff=True)
    noise.draw(1)
    terms = batch_terms(model, ObjectiveSettings(lr_reading=reading), torch.rand(3, 1, 4, 4) * 255, noise, 1.0)
    terms.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# ---- what is refused


@pytest.mark.parametrize("number", [3, 16, 6])
def test_a_number_that_is_no_fraction_of_the_image_is_refused(number: int) -> None:
    """Of 8×8 images: no power-of-two fraction, or finer than the image."""
    with refused(f"lr_reading is {number}", "no power-of-two fraction of the image size 8", "choose one of 8, 4, 2, 1"):
        tiny_settings(lr_reading=number)


@pytest.mark.parametrize("reading", ["full", "random", "group", 8, 4, 1])
def test_what_fits_the_model_is_taken(reading: Any) -> None:
    assert tiny_settings(lr_reading=reading).objective.lr_reading == reading


def test_group_is_refused_for_a_vae_of_vectors() -> None:
    with refused("lr_reading is group", "latents of PlainVAE are vectors", "choose full"):
        settings_for(PlainConfig)(objective=ObjectiveSettings(lr_reading="group"))


def test_group_is_refused_where_a_resolution_does_not_divide_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainVAE, "latent_shapes", ((4, 1, 1), (4, 3, 3)))
    with refused("lr_reading is group", "have resolution 3, which does not divide the image size 4", "choose full"):
        check_group_reading(PlainVAE(PlainConfig()))
