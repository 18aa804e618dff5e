"""Each row shows the image whose number its label says, and that image's own reconstruction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.evaluation.document import InputRates
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures import evaluation_pictures
from vdvae_lr.pictures.evaluation_pictures import nearest_collapse_picture
from vdvae_lr.pictures.images import Pictures, reconstructions

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
