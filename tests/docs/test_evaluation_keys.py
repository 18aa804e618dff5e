"""Every quantity of `evaluation.json` is defined in the documents, under its own key."""

import re

import pytest
import torch
from measured_pixels import measuring_of

from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World

PAGES = [CHECKOUT_ROOT / "docs" / name for name in ("evaluation.md", "bi_lipschitz.md")]
ENDINGS = ("_content", "_content_bits", "_before", "_relative", "_prior_scale", "_prior_samples")
"""Variants that the pages define once, for many keys."""
LITTLE = SectionSettings(
    content_dimensions=100,
    mixture_batch=2,
    mixture_images=2,
    importance_images=1,
    importance_draws=2,
    gap_images=1,
    jacobian_images=1,
    jacobian_values=1,
    noise_images=2,
    noise_variances=(0.3,),
    reader_iterations=1,
    reader_batch=1,
)


def documented() -> set[str]:
    """Everything that stands as code in the pages."""
    return {word for page in PAGES for word in re.findall(r"`([^`\n]+)`", page.read_text())}


def forms(key: str) -> set[str]:
    """The words under which a key may be defined: itself, without endings, with V for a noise's variance and R for a
    band.
    """
    found = {re.sub(r"^noise_band_\d+", "noise_band_R", re.sub(r"_\d+\.\d+$", "_V", key))}
    while True:
        shorter = {word.removesuffix(ending) for word in found for ending in ENDINGS}
        if shorter <= found:
            return found
        found |= shorter


@pytest.fixture
def keys(small_model: VDVAE) -> list[str]:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    world = World(0, 1, torch.device("cpu"))
    before = VDVAE(small_model.config).double()
    found = measure_sections(Task(small_model, before, measuring_of(pixels, world), LITTLE))
    return [quantity.key for quantity in found.quantities]


def test_every_key_is_defined(keys: list[str]) -> None:
    known = documented()
    assert len(keys) > 60
    assert [key for key in keys if not forms(key) & known] == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_defined(ending: str) -> None:
    assert {ending, f"…{ending}"} & documented()


def test_an_unknown_key_would_be_seen() -> None:
    assert not forms("no_such_quantity_before") & documented()
