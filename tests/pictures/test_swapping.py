"""Coarse latents of one image, fine ones of another, compared with latents put together by hand."""

import numpy as np
import pytest
from latent_edits import following, image_of, posterior_means, standardised
from refusals import refused
from torch import Tensor

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.images import as_pictures
from vdvae_lr.pictures.latent_codes import Coordinates

COORDINATES = pytest.mark.parametrize("coordinates", ["standardised", "latents"])


@COORDINATES
@pytest.mark.parametrize("latents", ["mean", "sample"])
def test_none_is_the_fine_image_and_all_the_coarse_one(
    small_model: VDVAE, pixels: Tensor, coordinates: Coordinates, latents: str
) -> None:
    single, pictures = small_model.float(), as_pictures(pixels)[:3]
    own = vdvae_lr.reconstruct(single, pictures, latents=latents, seed=4)  # type: ignore[arg-type]
    none, some, every = (
        vdvae_lr.swap(single, pictures, first_groups=count, coordinates=coordinates, latents=latents, seed=4)  # type: ignore[arg-type]
        for count in (0, 2, 5)
    )
    for i in range(3):
        np.testing.assert_array_equal(none[:, i], np.broadcast_to(own[i], own.shape))
        np.testing.assert_array_equal(every[i], np.broadcast_to(own[i], own.shape))
        np.testing.assert_array_equal(some[i, i], own[i])


@COORDINATES
@pytest.mark.parametrize("count", [1, 3, 4])
def test_pairs_are_mixed_as_they_say(small_model: VDVAE, pixels: Tensor, coordinates: Coordinates, count: int) -> None:
    pictures = as_pictures(pixels)[:3]
    means = posterior_means(small_model, pictures)
    noise = standardised(small_model, means)
    found = vdvae_lr.swap(small_model, pictures, first_groups=count, coordinates=coordinates, batch=4)
    for i, j in ((0, 1), (2, 0), (1, 2)):
        coarse = {group: means[group][i : i + 1] for group in range(count)}
        if coordinates == "latents":
            coarse |= {group: means[group][j : j + 1] for group in range(count, 5)}
        latents = following(small_model, coarse, [values[j : j + 1] for values in noise])
        np.testing.assert_array_equal(found[i, j], image_of(small_model, latents)[0])


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 2, 5])
def test_no_pass_takes_more_than_a_batch(
    small_model: VDVAE, pixels: Tensor, monkeypatch: pytest.MonkeyPatch, batch: int, count: int
) -> None:
    top_down, sizes = VDVAE.top_down, []

    def remember(self: VDVAE, sources: object, size: int, *arguments: object, **options: object) -> object:
        sizes.append(size)
        return top_down(self, sources, size, *arguments, **options)  # type: ignore[arg-type]

    pictures = as_pictures(pixels)[:5]
    whole = vdvae_lr.swap(small_model, pictures, first_groups=count, latents="sample", batch=25)
    monkeypatch.setattr(VDVAE, "top_down", remember)
    found = vdvae_lr.swap(small_model, pictures, first_groups=count, latents="sample", batch=batch)
    assert max(sizes) == batch
    np.testing.assert_array_equal(found, whole)


def test_groups_that_do_not_exist(small_model: VDVAE, pixels: Tensor) -> None:
    with refused("the first 6 groups", "cannot be had", "groups 0 to 4"):
        vdvae_lr.swap(small_model, as_pictures(pixels), first_groups=6)
