"""All random numbers of a pass follow from a key, and an image's from nothing else."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.noise import PassNoise, noise_key

CPU = torch.device("cpu")


def everything(noise: PassNoise) -> list[Tensor]:
    assert noise.prior is not None
    assert noise.image is not None
    return [*noise.posterior, *noise.prior, *noise.image]


def drawn(model: VDVAE, keys: list[int]) -> list[Tensor]:
    """Copies of every buffer, a row a key."""
    noise = PassNoise(model, len(keys), CPU, prior=True)
    noise.draw_rows(keys)
    return [tensor.clone() for tensor in everything(noise)]


def all_equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def all_differ(left: list[Tensor], right: list[Tensor]) -> bool:
    return not any(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_one_key_gives_one_set_of_numbers_whatever_was_drawn_before(small_model: VDVAE) -> None:
    fresh, used = (PassNoise(small_model, 2, CPU, prior=True) for _ in range(2))
    used.draw(1)
    fresh.draw(2)
    used.draw(2)
    assert all_equal(everything(fresh), everything(used))


@pytest.mark.parametrize("latents", [3, 100, 1000, 5000])
def test_a_place_has_the_same_draw_however_the_places_are_cut_into_batches(latents: int) -> None:
    """Small models draw several places at once: a batch may begin and end inside of such a group."""
    model = cast(LatentModel, SimpleNamespace(latent_shapes=((latents, 1, 1),), image_noise_shapes=((1, 2, 2),)))

    def drawn_from(first: int, count: int) -> Tensor:
        noise = PassNoise(model, count, CPU, prior=True, cutoff=True)
        noise.draw("train", 7, first=first)
        assert noise.cutoff is not None
        return torch.cat([part.flatten(1) for part in [*everything(noise), noise.cutoff]], dim=1).clone()

    whole = drawn_from(0, 50)
    assert len(whole.unique()) > 0.99 * whole.numel()  # no place repeats another's numbers
    for sizes in [(25, 25), (1, 48, 1), (7, 33, 10), (39, 11)]:
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        assert torch.equal(torch.cat([drawn_from(*part) for part in zip(starts, sizes, strict=True)]), whole)


def test_two_keys_give_different_numbers_in_every_buffer(small_model: VDVAE) -> None:
    noise = PassNoise(small_model, 2, CPU, prior=True)
    noise.draw(1)
    before = [tensor.clone() for tensor in everything(noise)]
    noise.draw(2)
    assert all_differ(before, everything(noise))


def test_rows_do_not_depend_on_their_place_or_their_neighbours(small_model: VDVAE) -> None:
    three, alone = drawn(small_model, [11, 12, 13]), drawn(small_model, [13])
    swapped = drawn(small_model, [13, 12])
    assert all_equal([tensor[2:] for tensor in three], alone)
    assert all_equal([tensor[:1] for tensor in swapped], alone)
    assert all_differ([tensor[0] for tensor in three], [tensor[1] for tensor in three])


def test_drawing_leaves_the_global_generator_alone(small_model: VDVAE) -> None:
    state = torch.get_rng_state()
    drawn(small_model, [1, 2])
    assert torch.equal(torch.get_rng_state(), state)


def test_posterior_prior_and_groups_have_draws_of_their_own(small_model: VDVAE) -> None:
    """No number occurs twice among all the latents' draws of one image."""
    noise = PassNoise(small_model, 1, CPU, prior=True)
    noise.draw(1)
    numbers = torch.cat([tensor.flatten() for tensor in (*noise.posterior, *noise.prior)])
    assert len(numbers.unique()) > 0.999 * len(numbers)  # float32 normals do collide by chance, views would by half


def test_shapes_are_the_models(small_model: VDVAE) -> None:
    noise = PassNoise(small_model, 4, CPU, prior=True)
    expected = [(4, *shape) for shape in small_model.latent_shapes]
    assert [tuple(draw.shape) for draw in noise.posterior] == expected
    assert [tuple(draw.shape) for draw in noise.prior] == expected
    assert [tuple(draw.shape) for draw in noise.image] == [(4, 3, 8, 8), (4, 3, 8, 8)]


def test_channels_lie_innermost_like_the_activations_they_meet(small_model: VDVAE) -> None:
    noise = PassNoise(small_model, 2, CPU, prior=True)
    assert {draw.stride(1) for draw in (*noise.posterior, *noise.prior)} == {1}


def test_only_what_is_asked_for_is_made(small_model: VDVAE) -> None:
    noise = PassNoise(small_model, 2, CPU, image=False)
    assert noise.prior is None
    assert noise.image is None


def test_the_posteriors_draws_do_not_depend_on_what_else_is_drawn(small_model: VDVAE) -> None:
    """An image's latents are the same whether or not a sampled image follows; the row order is normal, then uniform."""
    lean, full = PassNoise(small_model, 2, CPU, image=False), PassNoise(small_model, 2, CPU)
    lean.draw_rows([5, 6])
    full.draw_rows([5, 6])
    assert all_equal(list(lean.posterior), list(full.posterior))


@pytest.mark.parametrize("draw", [lambda noise: noise.draw(5), lambda noise: noise.draw_rows([5, 6])])
def test_the_draw_of_a_cutoff_leaves_all_others_as_they_are(small_model: VDVAE, draw: Callable[..., None]) -> None:
    plain, more = (PassNoise(small_model, 2, CPU, prior=True, cutoff=cutoff) for cutoff in (False, True))
    draw(plain)
    draw(more)
    assert plain.cutoff is None
    assert more.cutoff is not None and more.cutoff.shape == (2, 1, 1, 1)
    assert all_equal(everything(plain), everything(more))
    assert len(more.cutoff.unique()) == 2


def test_the_cutoff_of_an_example_depends_on_its_key_alone(small_model: VDVAE) -> None:
    both, alone = PassNoise(small_model, 2, CPU, cutoff=True), PassNoise(small_model, 1, CPU, cutoff=True)
    both.draw_rows([5, 6])
    alone.draw_rows([6])
    assert torch.equal(both.cutoff[1:], alone.cutoff)


def test_latents_are_standard_normal_and_images_uniform(small_model: VDVAE) -> None:
    """First two moments, within five standard errors of 64 images' draws."""
    noise = PassNoise(small_model, 64, CPU, prior=True)
    noise.draw(3)
    normal = torch.cat([tensor.flatten() for tensor in (*noise.posterior, *noise.prior)]).double()
    uniform = torch.cat([draw.flatten() for draw in noise.image]).double()
    assert abs(normal.mean()) < 5 / len(normal) ** 0.5
    assert abs(normal.var() - 1) < 5 * (2 / len(normal)) ** 0.5
    assert abs(uniform.mean() - 0.5) < 5 * (1 / 12 / len(uniform)) ** 0.5
    assert abs(uniform.var() - 1 / 12) < 5 * (1 / 180 / len(uniform)) ** 0.5


def test_keys_tell_their_parts_apart() -> None:
    keys = {noise_key(*parts) for parts in [("train", 1, 23), ("train", 12, 3), ("train", 123), ("test", 1, 23), (1,)]}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("parts", "key"), [(("train", 0, 0, 0), 2686358925262853010), (("evaluate", 7), 482258313076567096)]
)
def test_keys_are_the_same_in_every_process_and_version(parts: tuple[int | str, ...], key: int) -> None:
    """Pinned: another hash would break the resumption of every run, and every recorded number."""
    assert noise_key(*parts) == key
    assert 0 <= key < 2**63
