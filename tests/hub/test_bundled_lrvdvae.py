"""The bundled model that was fine-tuned with LR: its name, its size, and that it is what its card says."""

import json
from pathlib import Path

import pytest
import torch
from loopback_client import client_at
from refusals import refused

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.loader import evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import WeightSettings, bundled_models, find_weights
from vdvae_lr.processes.world import World

NAME = "lrvdvae-fashion"
NOWHERE = "http://127.0.0.1:1"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def folder() -> Path:
    return bundled_folder("models/fashion_lr")


def test_it_is_found_by_its_name_without_network(folder: Path, tmp_path: Path) -> None:
    assert bundled_models() == {"fashion": folder.with_name("fashion"), NAME: folder}
    with client_at(NOWHERE, tmp_path / "home"):
        assert find_weights(NAME).path == folder / "model.safetensors"
        # the program's own comes before one on the Hub
        assert find_weights(NAME, WeightSettings(lr_repository="somebody/lrvdvae-{name}")).path.parent == folder


def test_it_is_small_and_of_the_same_form_as_the_one_it_began_as(folder: Path) -> None:
    assert VDVAE.from_pretrained(NAME).config == VDVAE.from_pretrained("fashion").config
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6 * MEGABYTE


def test_a_name_like_it_is_one_sentence() -> None:
    with refused("'lrvdvae-fasion' does not come with this program", f"did you mean '{NAME}'?", "--lr_repository"):
        find_weights("lrvdvae-fasion")


def test_what_it_gained_and_paid_is_as_recorded(folder: Path) -> None:
    """On the first 200 bundled test images; `comparison.json` was written by the command in the model's README."""
    recorded = json.loads((folder / "comparison.json").read_text())["models"]
    images = open_splits(DataSettings("fashion_small"), 32, 1).test
    world = World(0, 1, torch.device("cpu"))
    found = {}
    for label, name in (("before", "fashion"), ("LRVDVAE", NAME)):
        batches = evaluation_batches(images, evaluation_shards(200, 50, 0, 1), 0, False)
        found[label] = evaluate_bound(VDVAE.from_pretrained(name), batches, seed=0, world=world)
        totals = {quantity["key"]: quantity["total"] for quantity in recorded[label]["quantities"]}
        error = 4 * found[label].standard_error
        assert found[label].negative_elbo == pytest.approx(totals["negative_elbo"]["value"], abs=error)
        assert found[label].rate == pytest.approx(totals["rate"]["value"], rel=0.1)
    assert found["LRVDVAE"].rate > found["before"].rate
