"""Pictures under latent noise: every model with every unit, and no noise shown once."""

import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.evaluation_pictures import noise_picture, noise_pictures
from vdvae_lr.pictures.images import as_pictures
from vdvae_lr.pictures.picture_grid import picture_grid


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
