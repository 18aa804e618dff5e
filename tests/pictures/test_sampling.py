"""Samples: the same picture whatever the batch, and a temperature for each group."""

import numpy as np
import pytest
import torch
from refusals import refused

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import FromPrior
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.pictures.images import samples


@pytest.mark.parametrize("image", ["sample", "mean"])
def test_batches_change_nothing(small_model: VDVAE, image: str) -> None:
    whole, parts, fewer = (
        vdvae_lr.sample(small_model, count, seed=3, image=image, batch=batch)  # type: ignore[arg-type]
        for count, batch in ((5, 5), (5, 2), (3, 1))
    )
    assert whole.shape == (5, 8, 8, 3) and whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole[:3], fewer)
    np.testing.assert_array_equal(whole, samples(small_model, 5, seed=3, image=image)[0])  # type: ignore[arg-type]
    assert len({picture.tobytes() for picture in whole}) == 5
    assert (whole != vdvae_lr.sample(small_model, 5, seed=4, image=image)).any()  # type: ignore[arg-type]


def test_each_group_has_its_temperature(small_model: VDVAE) -> None:
    factors = (1.0, 0.3, 0.3, 2.0, 2.0)
    noise = PassNoise(small_model, 2, torch.device("cpu"), prior=True, image=False)
    noise.draw_rows([noise_key("samples", 0, number) for number in range(2)])
    assert noise.prior is not None
    sources = [FromPrior(draw, factor) for draw, factor in zip(noise.prior, factors, strict=True)]
    with torch.no_grad():
        mean = small_model.top_down(sources, 2).likelihood.mean()
    expected = ((mean + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    for words in (factors, "4x4:0.3,8:2", "1,0.3,0.3,2,2"):
        drawn = vdvae_lr.sample(small_model, 2, temperature=words, image="mean")
        np.testing.assert_array_equal(drawn, expected)


def test_temperature_0_makes_one_mean_image(small_model: VDVAE) -> None:
    cold = vdvae_lr.sample(small_model, 3, temperature=0, image="mean")
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[:1], cold.shape))


@pytest.mark.parametrize(
    ("count", "batch", "cause"), [(0, 1, "count is 0"), (-1, 1, "count is -1"), (1, 0, "batch is 0")]
)
def test_no_picture_is_refused(small_model: VDVAE, count: int, batch: int, cause: str) -> None:
    with refused("", cause, "1"):
        vdvae_lr.sample(small_model, count, batch=batch)


def test_a_temperature_beyond_all_bounds_is_no_picture(small_model: VDVAE) -> None:
    with refused("the decoder makes no image", "NaN", "lower the temperature"):
        vdvae_lr.sample(small_model.float(), 2, temperature=1e30)
