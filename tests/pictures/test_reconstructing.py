"""Reconstructions from the first k groups: which latents are the image's, and which the prior's."""

import numpy as np
import pytest
import torch
from latent_edits import following, image_of, posterior_means
from refusals import refused
from torch import Tensor

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.pictures.images import as_pictures, reconstructions


@pytest.mark.parametrize("batch", [3, 32])
def test_all_groups_drawn_are_the_reconstructions_of_compare(small_model: VDVAE, pixels: Tensor, batch: int) -> None:
    found = vdvae_lr.reconstruct(small_model, as_pictures(pixels), latents="sample", seed=5, batch=batch)
    np.testing.assert_array_equal(found, reconstructions(small_model, pixels, seed=5)[1])


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_first_groups_are_posterior_means_and_the_others_follow_the_prior(
    small_model: VDVAE, pixels: Tensor, kept: int, temperature: float
) -> None:
    pictures = as_pictures(pixels)[:3]
    means = posterior_means(small_model, pictures)
    noise = PassNoise(small_model, 3, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key("reconstruct", 2, number) for number in range(3)])
    given = dict(enumerate(means[:kept]))
    expected = image_of(small_model, following(small_model, given, [temperature * draw for draw in noise.posterior]))
    found = vdvae_lr.reconstruct(small_model, pictures, first_groups=kept, temperature=temperature, seed=2, batch=2)
    np.testing.assert_array_equal(found, expected)
    if kept == 0:
        other = vdvae_lr.reconstruct(small_model, 255 - pictures, first_groups=0, temperature=temperature, seed=2)
        np.testing.assert_array_equal(found, other)  # nothing of the image is left


def test_examples_key_the_noise(small_model: VDVAE, pixels: Tensor) -> None:
    pictures = as_pictures(pixels)
    whole = vdvae_lr.reconstruct(small_model, pictures, first_groups=2, latents="sample", temperature=1)
    part = vdvae_lr.reconstruct(
        small_model, pictures[4:], first_groups=2, latents="sample", temperature=1, examples=range(4, 7)
    )
    np.testing.assert_array_equal(part, whole[4:])


@pytest.mark.parametrize("kept", [-1, 6])
def test_groups_that_do_not_exist(small_model: VDVAE, pixels: Tensor, kept: int) -> None:
    with refused(f"the first {kept} groups", "cannot be had", "groups 0 to 4"):
        vdvae_lr.reconstruct(small_model, as_pictures(pixels), first_groups=kept)
