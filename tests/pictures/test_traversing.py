"""One latent channel moved: by how much and where, and what happens to the others."""

import numpy as np
import pytest
import torch
from latent_edits import following, image_of, posterior_means, standardised
from latent_groups import groups_of
from refusals import refused
from torch import Tensor

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import Given
from vdvae_lr.pictures.images import Pictures, as_pictures
from vdvae_lr.pictures.latent_codes import Coordinates
from vdvae_lr.pictures.traversing import MoveUnit

MOVES = (-2.0, 0.0, 1.5)


@pytest.fixture
def picture(pixels: Tensor) -> Pictures:
    return as_pictures(pixels)[:1]


@pytest.mark.parametrize("coordinates", ["standardised", "latents"])
@pytest.mark.parametrize("unit", ["prior_scale", "raw"])
@pytest.mark.parametrize("position", [None, (1, 3)])
def test_against_latents_moved_by_hand(
    small_model: VDVAE, picture: Pictures, coordinates: Coordinates, unit: MoveUnit, position: tuple[int, int] | None
) -> None:
    group, channels = 1, (2, 0)
    means = posterior_means(small_model, picture)
    noise = standardised(small_model, means)
    with torch.no_grad():
        scale = groups_of(small_model.top_down([Given(mean) for mean in means], 1))[group].prior.log_scale.exp()
    found = vdvae_lr.traverse(
        small_model,
        picture,
        group=group,
        moves=MOVES,
        channels=channels,
        position=position,
        unit=unit,
        coordinates=coordinates,
        batch=3,
    )
    assert found.shape == (2, 3, 8, 8, 3)
    for row, channel in enumerate(channels):
        for column, move in enumerate(MOVES):
            moved = means[group].clone()
            for y in range(4):
                for x in range(4):
                    if position in (None, (y, x)):
                        moved[0, channel, y, x] += move * (scale[0, channel, y, x] if unit == "prior_scale" else 1)
            given = dict(enumerate(means)) if coordinates == "latents" else {0: means[0]}
            expected = image_of(small_model, following(small_model, given | {group: moved}, noise))
            np.testing.assert_array_equal(found[row, column], expected[0])
    assert (found[:, 0] != found[:, 2]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("coordinates", ["standardised", "latents"])
def test_a_move_of_nothing_is_the_reconstruction(
    small_model: VDVAE, picture: Pictures, coordinates: Coordinates
) -> None:
    single = small_model.float()
    found = vdvae_lr.traverse(single, picture, group=2, moves=(0.0,), coordinates=coordinates, latents="sample", seed=3)
    own = vdvae_lr.reconstruct(single, picture, latents="sample", seed=3)
    assert found.shape == (3, 1, 8, 8, 3)
    np.testing.assert_array_equal(found, np.broadcast_to(own, found.shape))


def test_without_an_image_it_begins_at_the_first_sample(small_model: VDVAE) -> None:
    found = vdvae_lr.traverse(small_model, group=4, moves=(0.0, 1.0), temperature="8:0.5", seed=6)
    first = vdvae_lr.sample(small_model, 2, temperature="8:0.5", seed=6, image="mean")[0]
    np.testing.assert_array_equal(found[:, 0], np.broadcast_to(first, found[:, 0].shape))
    assert (found[:, 1] != first).any()


@pytest.mark.parametrize(
    ("place", "cause", "remedy"),
    [
        ({"group": 5}, "there is no latent group 5", "0 at 1x1, 1:3 at 4x4, 3:5 at 8x8"),
        ({"group": -1}, "there is no latent group -1", "groups 0 to 4"),
        ({"group": 1, "channels": [0, 3]}, "there is no channel 3", "latent group 1 has channels 0 to 2"),
        ({"group": 1, "position": (0, 4)}, "there is no position 0,4", "latent group 1 is 4x4"),
        ({"group": 1, "moves": ()}, "moves must be finite numbers", "at least one"),
        ({"group": 1, "moves": (float("nan"),)}, "moves must be finite numbers", "at least one"),
    ],
)
def test_places_that_do_not_exist(small_model: VDVAE, place: dict, cause: str, remedy: str) -> None:  # type: ignore[type-arg]
    with refused("", cause, remedy):
        vdvae_lr.traverse(small_model, **place)


def test_moves_may_be_an_array(small_model: VDVAE, picture: Pictures) -> None:
    found = vdvae_lr.traverse(small_model, picture, group=1, moves=np.array(MOVES, dtype=np.float32))
    np.testing.assert_array_equal(found, vdvae_lr.traverse(small_model, picture, group=1, moves=MOVES))


def test_a_move_out_of_all_bounds_is_no_picture(small_model: VDVAE) -> None:
    with refused("the decoder makes no image", "NaN", "nearer"):
        vdvae_lr.traverse(small_model.float(), group=0, moves=(1e38,))
