"""The five functions that make pictures refuse misspelt choices and name them."""

from collections.abc import Callable

import pytest
from refusals import refused
from torch import Tensor

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.images import Pictures, as_pictures

CALLS: dict[str, Callable[..., Pictures]] = {
    "sample": lambda model, _, **choice: vdvae_lr.sample(model, 1, **choice),
    "reconstruct": vdvae_lr.reconstruct,
    "interpolate": lambda model, images, **choice: vdvae_lr.interpolate(model, images[0], images[1], **choice),
    "traverse": lambda model, images, **choice: vdvae_lr.traverse(model, images[0], group=0, **choice),
    "swap": lambda model, images, **choice: vdvae_lr.swap(model, images, **{"first_groups": 1, **choice}),
}


@pytest.mark.parametrize(
    ("call", "name", "value", "remedy"),
    [
        ("sample", "image", "foo", "mean or sample"),
        ("reconstruct", "latents", "sampl", "mean or sample"),
        ("interpolate", "path", "spherial", "spherical or linear"),
        ("interpolate", "coordinates", "standard", "standardised or latents"),
        ("interpolate", "latents", "sampl", "mean or sample"),
        ("traverse", "unit", "x", "prior_scale or raw"),
        ("traverse", "coordinates", "standard", "standardised or latents"),
        ("traverse", "latents", "sampl", "mean or sample"),
        ("swap", "coordinates", "standard", "standardised or latents"),
        ("swap", "latents", "sampl", "mean or sample"),
        ("reconstruct", "first_groups", "4x4", "a whole number of groups"),
        ("swap", "first_groups", "4x4", "a whole number of groups"),
    ],
)
def test_misspelt_choices(small_model: VDVAE, pixels: Tensor, call: str, name: str, value: str, remedy: str) -> None:
    with refused(name, f"{name} is '{value}'", remedy):
        CALLS[call](small_model, as_pictures(pixels)[:2], **{name: value})


def test_what_is_no_word_is_told_by_its_type(small_model: VDVAE) -> None:
    with refused("image is of type int", "must be", "mean or sample"):
        vdvae_lr.sample(small_model, 1, image=1)  # type: ignore[arg-type]
