"""The whole way: fine-tune, push, load elsewhere, export; through the real commands, in processes of their own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import CHECKOUT, TRAIN
from loopback_hub import LoopbackHub
from safetensors.torch import load_file
from started_processes import Start
from training_runs import ALONE, assert_same_bits

from vdvae_lr.cli.main import main
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.loader import evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.torch_files import read_tensors
from vdvae_lr.hub.vdvae.tensors import to_published
from vdvae_lr.pictures.images import samples

REPOSITORY = "tester/lrvdvae-fashion"
ITERATIONS = 3
SHORT = {"iters": ITERATIONS, "n_batch": 2, "global_batch": 2, "eval_examples": 4, "num_images_visualize": 2}
MEASURE = (
    "import sys, test_trip, torch; torch.set_num_threads(1); torch.save(test_trip.measured(sys.argv[1]), sys.argv[2])"
)


def measured(name: str) -> dict[str, Any]:
    """What a model is for people: samples for a seed, and the bound on bundled images."""
    model = VDVAE.from_pretrained(name)
    images = open_splits(DataSettings("fashion_small"), 32, 1).test
    bound = evaluate_bound(
        model, evaluation_batches(images, evaluation_shards(6, 3, 0, 1), 0, False), seed=5, world=ALONE
    )
    drawn = samples(model, 2, (1.0, 0.7), seed=4)
    return {"samples": [torch.from_numpy(picture) for picture in drawn], "bound": vars(bound), "dataset": model.dataset}


def command(words: list[str], variables: dict[str, str]) -> str:
    """Run Python with `words` in a process of its own, and see it end well; its output."""
    places = {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests'}:{CHECKOUT / 'tests' / 'support'}"}
    start = Start([sys.executable, *words], places | variables)
    done = subprocess.run(
        start.command, env=start.environment(), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, fine-tuned with Latent Reconstruction on the bundled images."""
    folder = tmp_path_factory.mktemp("trip")
    settings = SHORT | {
        "save_dir": folder,
        "desc": "run",
        "lr": 0.001,
        "warmup_iters": 0,
        "num_workers": 0,
        "device": "cpu",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command([str(TRAIN), "--hps", "fashion", *words], {"HF_HUB_OFFLINE": "1"})
    return folder / "run"


def average_of(run: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = load_file(run / "checkpoints" / f"step-{ITERATIONS:08d}" / "ema.safetensors")
    return tensors


@pytest.mark.slow
def test_pushed_weights_are_the_runs_in_another_place(run: Path, hub: LoopbackHub, tmp_path: Path) -> None:
    """Samples and bound to the bit, from nothing but the repository's name."""
    pushed = command(["-m", "vdvae_lr", "push", str(run), REPOSITORY], hub.environment(tmp_path / "home", hub.token))
    assert f'from_pretrained("{REPOSITORY}")' in pushed
    elsewhere = hub.environment(tmp_path / "cold")
    command(["-c", MEASURE, REPOSITORY, str(tmp_path / "found.pt")], elsewhere)
    found, expected = torch.load(tmp_path / "found.pt"), measured(str(run))
    assert found["dataset"] == expected["dataset"] == "fashion_small"
    assert found["bound"] == expected["bound"]
    assert all(torch.equal(*pair) for pair in zip(found["samples"], expected["samples"], strict=True))
    before = measured("fashion")
    assert before["bound"] != expected["bound"]  # else fine-tuning had done nothing
    assert not all(torch.equal(*pair) for pair in zip(before["samples"], expected["samples"], strict=True))


@pytest.mark.slow
def test_the_published_format_holds_the_averages_and_gives_them_back(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "weights.th"
    assert main(["export", str(run), str(target), "--format", "published"]) == 0
    average, plain = average_of(run), VDVAE.from_pretrained("fashion")
    published = to_published(plain, average)
    assert_same_bits(dict(published), read_tensors(target))
    assert list(read_tensors(target)) == list(published)  # the order that the published optimiser counts in
    assert_same_bits(average, dict(VDVAE.from_pretrained(target, config=plain.config).state_dict()))
