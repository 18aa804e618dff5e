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
from vdvae_lr.pictures.evaluation_pictures import nearest_collapse_picture, noise_picture, noise_pictures
from vdvae_lr.pictures.images import Pictures, as_pictures, reconstructions
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
    shown: dict[str, Pictures] = {}
    draw = evaluation_pictures.picture_grid

    def remembered(rows: Sequence[Pictures], labels: Sequence[str]) -> Image.Image:
        shown.update(zip(labels, rows, strict=True))
        return draw(rows, labels)

    monkeypatch.setattr(evaluation_pictures, "picture_grid", remembered)
    source = ArraySource(images, all_rows(images), "images")
    picture = nearest_collapse_picture(model, source, INPUTS, seed=2, batch=batch)
    assert list(shown) == ["image 5, KL 0.01235 nats/dim", "image 0, KL 0.02 nats/dim", "image 3, KL 0.5 nats/dim"]
    for number, row in zip((5, 0, 3), shown.values(), strict=True):
        assert np.array_equal(row[0], images[number])
        own = reconstructions(model, pixels[number : number + 1, :channels], seed=2, examples=[number])[1][0]
        assert np.array_equal(row[1], own)
    assert picture.height > 3 * 64


@pytest.fixture
def models(small_model: VDVAE) -> dict[str, VDVAE]:
    other = VDVAE(small_model.config).double()
    other.load_state_dict({name: 0.9 * tensor for name, tensor in small_model.state_dict().items()})
    return {"a": small_model, "b": other}


def test_picture_has_the_images_then_every_model_with_every_unit(models: dict[str, VDVAE], pixels: Tensor) -> None:
    shown = pixels[:3]
    rows, labels = [as_pictures(shown)], ["image"]
    for name, model in models.items():
        rows += noise_pictures(model, shown, (0.0, 0.3), seed=4, unit="raw", groups=[2])
        rows += noise_pictures(model, shown, (0.3,), seed=4, unit="prior_scale", groups=[2])
        labels += [f"{name}, noise 0", f"{name}, noise 0.3", f"{name}, noise 0.3, in prior's scale"]
    found = noise_picture(models, shown, variances=(0.0, 0.3), units=("raw", "prior_scale"), seed=4, groups=[2])
    assert len(labels) == 7
    assert same(found, picture_grid(rows, labels, title="Mean images; noise of the stated variance in group 2"))
    assert torch.is_grad_enabled()


def test_no_noise_is_shown_once(small_model: VDVAE, pixels: Tensor) -> None:
    both = noise_picture({"": small_model}, pixels, variances=(0.0,), units=("raw", "prior_scale"), seed=4)
    rows = noise_pictures(small_model, pixels, (0.0,), seed=4)
    title = "Mean images; noise of the stated variance in every group"
    assert same(both, picture_grid([as_pictures(pixels), *rows], ["image", "noise 0"], title=title))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None
