"""Between two images: exact ends, the line and the arc by their formulas, and groups that stay."""

import math

import numpy as np
import pytest
import torch
from latent_edits import following, image_of, posterior_means, standardised
from refusals import refused
from torch import Tensor

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.images import Pictures, as_pictures
from vdvae_lr.pictures.interpolating import InterpolationPath, arc
from vdvae_lr.pictures.latent_codes import Coordinates, PosteriorLatents


@pytest.fixture
def pair(pixels: Tensor) -> Pictures:
    return as_pictures(pixels)[:2]


@pytest.mark.parametrize("latents", ["mean", "sample"])
@pytest.mark.parametrize(
    ("path", "coordinates"), [("linear", "latents"), ("linear", "standardised"), ("spherical", "standardised")]
)
def test_ends_are_the_reconstructions(
    small_model: VDVAE, pair: Pictures, path: InterpolationPath, coordinates: Coordinates, latents: PosteriorLatents
) -> None:
    single = small_model.float()
    made = vdvae_lr.interpolate(single, *pair, steps=2, path=path, coordinates=coordinates, latents=latents, seed=1)
    np.testing.assert_array_equal(made, vdvae_lr.reconstruct(single, pair, latents=latents, seed=1))


def test_a_line_between_latents(small_model: VDVAE, pair: Pictures) -> None:
    means = posterior_means(small_model, pair)
    steps = [[(1 - t) * mean[:1] + t * mean[1:] for mean in means] for t in (0, 0.25, 0.5, 0.75, 1)]
    made = vdvae_lr.interpolate(small_model, *pair, steps=5, path="linear", coordinates="latents", batch=2)
    np.testing.assert_array_equal(made, np.concatenate([image_of(small_model, step) for step in steps]))


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_standardised_latents_follow_the_prior(small_model: VDVAE, pair: Pictures, path: InterpolationPath) -> None:
    """Compared with each group's noise interpolated by hand, one group after the other."""
    noise = standardised(small_model, posterior_means(small_model, pair))
    made = vdvae_lr.interpolate(small_model, *pair, steps=4, path=path)
    for step in (1, 2):
        t = torch.tensor([step / 3], dtype=torch.float64)
        between = [arc(n[0], n[1], t) if path == "spherical" else (1 - t) * n[:1] + t * n[1:] for n in noise]
        np.testing.assert_array_equal(made[step], image_of(small_model, following(small_model, {}, between))[0])


@pytest.mark.parametrize("coordinates", ["standardised", "latents"])
def test_groups_that_do_not_move_stay_the_first_images(
    small_model: VDVAE, pair: Pictures, coordinates: Coordinates
) -> None:
    means = posterior_means(small_model, pair)
    first, second = [mean[:1] for mean in means], [mean[1:] for mean in means]
    made = vdvae_lr.interpolate(small_model, *pair, steps=3, path="linear", groups="1,3", coordinates=coordinates)
    if coordinates == "latents":
        ending = [second[group] if group in (1, 3) else first[group] for group in range(5)]
    else:
        own, other = standardised(small_model, first), standardised(small_model, means)
        noise = [other[group][1:] if group in (1, 3) else own[group] for group in range(5)]
        ending = following(small_model, {0: first[0]}, noise)
    np.testing.assert_array_equal(made[2], image_of(small_model, ending)[0])
    np.testing.assert_array_equal(made[0], image_of(small_model, first)[0])


def test_an_arc_turns_steadily_and_keeps_its_length() -> None:
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    found = arc(first, second, torch.tensor([0.0, 1 / 3, 0.5, 1.0]))
    angles = [0, math.pi / 6, math.pi / 4, math.pi / 2]
    expected = torch.tensor([[[2 * math.cos(a), 2 * math.sin(a)]] for a in angles])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_an_arc_between_unequal_or_nearly_opposite_latents_is_no_longer_than_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 3, 3, generator=generator)
    second = -2 * first + 0.01 * torch.randn(4, 3, 3, generator=generator)
    lengths = arc(first, second, torch.linspace(0, 1, 5)).flatten(1).norm(dim=1)
    expected = torch.linspace(float(first.norm()), float(second.norm()), 5)
    torch.testing.assert_close(lengths, expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("second", [torch.zeros(3), torch.tensor([2.0, 4.0, 6.0]), torch.tensor([-1.0, -2.0, -3.0])])
def test_without_an_angle_the_arc_is_the_line(second: Tensor) -> None:
    first = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(arc(first, second, torch.tensor([0.25])), (0.75 * first + 0.25 * second)[None])


def test_what_is_no_interpolation(small_model: VDVAE, pair: Pictures) -> None:
    with refused("steps is 1", "must be 2 or more", "both ends count"):
        vdvae_lr.interpolate(small_model, *pair, steps=1)
    with refused("an arc needs coordinates", "prior is round", "choose standardised"):
        vdvae_lr.interpolate(small_model, *pair, coordinates="latents")
    with refused("2 images", "where one is wanted", "name one file"):
        vdvae_lr.interpolate(small_model, pair, pair[0])
    with refused("latent groups '5'", "beyond the last", "groups 0 to 4"):
        vdvae_lr.interpolate(small_model, *pair, groups="5")


def test_the_number_of_a_group(small_model: VDVAE, pair: Pictures) -> None:
    found = vdvae_lr.interpolate(small_model, *pair, steps=3, groups=3)
    np.testing.assert_array_equal(found, vdvae_lr.interpolate(small_model, *pair, steps=3, groups="3"))


@pytest.mark.parametrize("coordinates", ["standardised", "latents"])
def test_latents_that_are_no_numbers_are_not_the_priors_fault(
    small_model: VDVAE, pair: Pictures, coordinates: Coordinates
) -> None:
    with torch.no_grad():
        small_model.decoder.blocks[3].prior.expand.bias.fill_(float("nan"))
    with refused("latent group 3", "not finite (NaN or infinite)", "other images") as caught:
        vdvae_lr.interpolate(small_model, *pair, path="linear", coordinates=coordinates)
    assert "variance" not in str(caught.value)


def test_a_prior_without_width_has_no_standardised_values(small_model: VDVAE, pair: Pictures) -> None:
    with torch.no_grad():
        prior = small_model.decoder.blocks[2].prior.expand
        prior.weight.zero_()
        prior.bias.fill_(-1e4)
    with refused("latent group 2", "prior of zero variance", "coordinates latents"):
        vdvae_lr.interpolate(small_model, *pair)
    made = vdvae_lr.interpolate(small_model, *pair, path="linear", coordinates="latents")
    assert made.shape == (9, 8, 8, 3)
