"""The bundled trained model: what it is, what it scores, and that default LR does not pull at its latents' scale."""

import json
from pathlib import Path

import pytest
import torch
from scale_direction import scale_derivatives

from vdvae_lr.cli.shared.config import apply_values
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.loader import evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.processes.world import World
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import batch_terms

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def model() -> VDVAE:
    return VDVAE.from_pretrained("fashion")


@pytest.fixture(scope="module")
def levels() -> torch.Tensor:
    images = open_splits(DataSettings("fashion_small"), 32, 1).test
    return torch.from_numpy(images.read(range(64))).permute(0, 3, 1, 2).float()


def test_it_is_the_presets_model_and_small(model: VDVAE) -> None:
    settings = apply_values(Settings(), read_presets("fashion"), "fashion")
    assert model.config == settings.model
    assert len(model.latent_shapes) >= 10
    assert len({shape[1] for shape in model.latent_shapes}) >= 4
    assert (bundled_folder("models/fashion") / "model.safetensors").stat().st_size <= 6 * MEGABYTE


def test_its_bound_on_bundled_images_is_as_recorded(model: VDVAE) -> None:
    """The first 200 bundled test images; `comparison.json` was written by the command in the model's README."""
    comparison = json.loads((bundled_folder("models/fashion") / "comparison.json").read_text())
    recorded = comparison["rows"]["negative_elbo"]["models"]["fashion"]
    images = open_splits(DataSettings("fashion_small"), 32, 1).test
    batches = evaluation_batches(images, evaluation_shards(200, 50, 0, 1), 0, False)
    bound = evaluate_bound(model, batches, seed=0, world=World(0, 1, torch.device("cpu")))
    assert bound.negative_elbo == pytest.approx(recorded["value"], abs=4 * bound.standard_error)
    assert comparison["examples"] == 10_000


def scale_pull(model: VDVAE, levels: torch.Tensor, settings: ObjectiveSettings) -> tuple[float, float]:
    """Length of LR's derivatives along every group's rescaling direction, and of LR's whole gradient."""
    noise = PassNoise(model, len(levels), levels.device)
    noise.draw(0)
    model.zero_grad()
    terms = batch_terms(model, settings, levels, noise, alpha=1.0)
    assert terms.latent_reconstruction is not None
    terms.latent_reconstruction.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return float(scale_derivatives(model).norm()), float(gradient.norm())


def test_default_lr_hardly_pulls_at_the_scale_of_the_latents(model: VDVAE, levels: torch.Tensor) -> None:
    """The scale trap: live raw LR falls when latents shrink; the default's gradient points elsewhere."""
    default, default_whole = scale_pull(model, levels, ObjectiveSettings())
    raw, raw_whole = scale_pull(model, levels, ObjectiveSettings(lr_form="raw", lr_target="live"))
    figures = f"default {default:.4f} of {default_whole:.4f}, live raw {raw:.4f} of {raw_whole:.4f}"
    print(figures)
    assert default < raw / 100, figures


def test_its_folder_says_where_it_is_from() -> None:
    folder: Path = bundled_folder("models/fashion")
    text = (folder / "README.md").read_text()
    for words in ("MIT", "hps/fashion_pretrain.toml", "1,024", "784"):
        assert words in text
    assert [json.loads(line)["kind"] for line in (folder / "log.jsonl").read_text().splitlines()].count("eval") > 3
