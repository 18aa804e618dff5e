"""Pictures of evaluations: images beside their own reconstructions, and every model under every unit of noise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.evaluation.document import InputRates
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures import evaluation_pictures
from vdvae_lr.pictures.evaluation_pictures import (
    nearest_collapse_picture,
    noise_picture,
    noise_pictures,
    samples_picture,
)
from vdvae_lr.pictures.images import Pictures, as_pictures, reconstructions, samples
from vdvae_lr.pictures.picture_grid import picture_grid

INPUTS = InputRates(7, "nats/dim", {}, (), ((5, 0.01234567), (0, 0.02), (3, 0.5)))


@pytest.mark.parametrize("batch", [1, 2, 12])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_the_inputs_named(
    small_model: VDVAE, pixels: Tensor, monkeypatch: pytest.MonkeyPatch, batch: int, channels: int
) -> None:
    model = small_model
    if channels == 1:
        torch.manual_seed(1)
        model = VDVAE(replace(small_model.config, image_channels=1)).double()
    images = pixels[:, :channels].permute(0, 2, 3, 1).contiguous().numpy()
    shown: dict[str, tuple[Pictures, Pictures]] = {}
    draw = evaluation_pictures.picture_grid

    def remembered(rows: Sequence[Pictures], labels: Sequence[str], columns: Sequence[str], title: str) -> Image.Image:
        shown.update(zip(columns, zip(*rows, strict=True), strict=True))
        assert (labels, title) == (["image", "reconstruction"], "Number in the split, and KL(x) in nats/dim")
        return draw(rows, labels, columns, title)

    monkeypatch.setattr(evaluation_pictures, "picture_grid", remembered)
    source = ArraySource(images, all_rows(images), "images")
    picture = nearest_collapse_picture(model, source, INPUTS, seed=2, batch=batch)
    assert list(shown) == ["no. 5\n0.0123", "no. 0\n0.02", "no. 3\n0.5"]
    for number, column in zip((5, 0, 3), shown.values(), strict=True):
        assert np.array_equal(column[0], images[number])
        own = reconstructions(model, pixels[number : number + 1, :channels], seed=2, examples=[number])[1][0]
        assert np.array_equal(column[1], own)
    assert picture.height > 2 * 64 and picture.width > 3 * 64


@pytest.fixture
def models(small_model: VDVAE) -> dict[str, VDVAE]:
    other = VDVAE(small_model.config).double()
    other.load_state_dict({name: 0.9 * tensor for name, tensor in small_model.state_dict().items()})
    return {"a": small_model, "b": other}


def test_every_kind_of_noise_has_all_models_below_one_another(models: dict[str, VDVAE], pixels: Tensor) -> None:
    shown = pixels[:3]
    rows = {("image", "", 0.0): as_pictures(shown)}
    for name, model in models.items():
        for unit in ("raw", "prior_scale"):
            made = noise_pictures(model, shown, (0.0, 0.3), seed=4, unit=unit, groups=[2])
            rows |= {(name, unit, variance): row for variance, row in zip((0.0, 0.3), made, strict=True)}
    order = {
        "image": ("image", "", 0.0),
        "a, no noise": ("a", "raw", 0.0),
        "b, no noise": ("b", "raw", 0.0),
        "a, noise 0.3, raw units": ("a", "raw", 0.3),
        "b, noise 0.3, raw units": ("b", "raw", 0.3),
        "a, noise 0.3, prior's scale": ("a", "prior_scale", 0.3),
        "b, noise 0.3, prior's scale": ("b", "prior_scale", 0.3),
    }
    found = noise_picture(models, shown, variances=(0.0, 0.3), units=("raw", "prior_scale"), seed=4, groups=[2])
    title = "Mean images; noise of the stated variance in group 2"
    assert same(found, picture_grid([rows[place] for place in order.values()], list(order), title=title))
    assert torch.is_grad_enabled()


def test_differences_stand_below_the_noisy_images(small_model: VDVAE, pixels: Tensor) -> None:
    clean, noisy = noise_pictures(small_model, pixels, (0.0, 4.0), seed=4)
    apart = np.clip(4 * np.abs(noisy.astype(int) - clean), 0, 255).astype(np.uint8)
    assert apart.any()
    rows = [as_pictures(pixels), clean, noisy, apart]
    labels = ["image", "no noise", "noise 4, raw units", "|difference| x 4"]
    title = "Mean images; noise of the stated variance in every group"
    found = noise_picture({"": small_model}, pixels, variances=(0.0, 4.0), units=("raw",), seed=4, differences=True)
    assert same(found, picture_grid(rows, labels, title=title))


def test_samples_are_large(small_model: VDVAE) -> None:
    side = small_model.config.image_size
    factor = -(-96 // side)
    drawn = samples(small_model, 32, seed=3)[0]
    picture = np.asarray(samples_picture(small_model, 3))
    assert picture.shape[0] > 4 * factor * side and picture.shape[1] > 8 * factor * side
    first = drawn[0].repeat(factor, 0).repeat(factor, 1)
    top, left = (np.argwhere((picture != 255).any(2)).min(0)[axis] for axis in (0, 1))
    assert np.array_equal(
        picture[top : top + len(first), left : left + len(first)], np.broadcast_to(first, (*first.shape[:2], 3))
    )


def test_no_noise_is_shown_once(small_model: VDVAE, pixels: Tensor) -> None:
    both = noise_picture({"": small_model}, pixels, variances=(0.0,), units=("raw", "prior_scale"), seed=4)
    rows = noise_pictures(small_model, pixels, (0.0,), seed=4)
    title = "Mean images; noise of the stated variance in every group"
    assert same(both, picture_grid([as_pictures(pixels), *rows], ["image", "no noise"], title=title))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None
