"""A VAE that is no VDVAE goes through every command: one group of latents, and a Gaussian likelihood."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from plain_vae import PlainConfig, PlainVAE
from training_runs import assert_same_bits, write_images

import vdvae_lr
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.evaluation.document import read_evaluation, read_evaluations
from vdvae_lr.hub import weight_folder
from vdvae_lr.hub.pretrained import PretrainedModel, config_of
from vdvae_lr.training.settings import settings_for

QUICK = ["--n_batch", "2", "--iters_per_print", "2", "--warmup_iters", "0", "--ema_rate", "0.3", "--num_workers", "0"]
TRAIN = ["--image_size", "8", "--image_channels", "3", "--device", "cpu", "--num_images_visualize", "2", *QUICK]
SECTIONS = ["--importance_images", "2", "--importance_draws", "2", "--gap_images", "1", "--jacobian_images", "1"]


def command(*words: str) -> int:
    return vdvae_lr.main_for(PlainVAE, list(words))


def train(folder: Path, images: Path, desc: str, *words: str) -> Path:
    places = ["--dataset", "folder", "--data_root", str(images), "--save_dir", str(folder), "--desc", desc]
    assert command("train", *places, *TRAIN, *words) == 0
    return folder / desc


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images", 80)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Trained with Latent Reconstruction on latents from the prior."""
    words = ("--iters", "4", "--alpha_T", "0.5", "--lr_latents", "prior", "--latents", "3", "--lr", "0.01")
    return train(tmp_path_factory.mktemp("runs"), images, "lr", *words)


def test_training_leaves_what_any_run_leaves(run: Path) -> None:
    config = json.loads((run / "checkpoints" / "step-00000004" / "config.json").read_text())
    assert config["class"] == "PlainVAE"
    assert config["model"] == {"image_size": 8, "image_channels": 3, "latents": 3, "width": 32}
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (evaluated,) = [record for record in records if record["kind"] == "eval"]
    assert len(evaluated["group_rates_nats_per_dim"]) == 1
    assert all(record["latent_reconstruction"] != 0 for record in records if record["kind"] == "train")
    assert list((run / "images").iterdir())


def test_a_run_that_goes_on_is_equal_bit_for_bit(tmp_path: Path, images: Path) -> None:
    words = ("--iters", "4", "--iters_per_save", "2", "--alpha_T", "0.5", "--lr_latents", "prior", "--lr", "0.01")
    run = train(tmp_path, images, "run", *words)
    unbroken = PlainVAE.from_pretrained(run, ema=False).state_dict()
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    train(tmp_path, images, "run", *words)
    assert_same_bits(PlainVAE.from_pretrained(run, ema=False).state_dict(), unbroken)


def test_weights_come_back_and_go_on(run: Path, tmp_path: Path, images: Path) -> None:
    model = PlainVAE.from_pretrained(run)
    assert (model.config, model.dataset) == (PlainConfig(8, 3, 3), "folder")
    assert command("export", str(run), str(tmp_path / "weights")) == 0
    found = PretrainedModel.from_pretrained(tmp_path / "weights")
    assert type(found) is PlainVAE
    assert_same_bits(found.state_dict(), model.state_dict())
    assert "`latents`" in (tmp_path / "weights" / "README.md").read_text()
    again = train(
        tmp_path, images, "again", "--pretrained", str(tmp_path / "weights"), "--iters", "1", "--alpha_T", "0"
    )
    assert PlainVAE.from_pretrained(again).config == model.config


def test_other_weights_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="holds weights of a PlainVAE"):
        vdvae_lr.VDVAE.from_pretrained(run)
    with pytest.raises(InputError, match="holds weights of a VDVAE"):
        PlainVAE.from_pretrained("fashion")
    assert command("export", str(run), str(tmp_path / "a.th"), "--format", "published") == EXIT_INPUT_ERROR
    assert "a PlainVAE has no published format" in capsys.readouterr().err


def test_a_class_that_is_not_known_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(weight_folder._CONFIGS, "PlainVAE")
    assert command("sample", str(run)) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert "class 'PlainVAE', which is not known here" in error
    assert "python FILE.py COMMAND" in error


def test_every_section_of_evaluate(run: Path, tmp_path: Path, images: Path) -> None:
    before = tmp_path / "before"
    torch.manual_seed(0)
    PlainVAE(PlainConfig(8, 3, 3)).save_pretrained(before)
    words = ["--mixture_batch", "2", "--mixture_images", "2", "--noise_images", "3", "--before", str(before), *SECTIONS]
    out = tmp_path / "out"
    assert command("evaluate", str(run), "--out", str(out), "--images", "2", *words) == 0
    found = read_evaluation(out)
    keys = {quantity.key for quantity in found.quantities}
    assert {"negative_elbo", "rate", "prior_scale", "active_positions_relative", "information_from_samples"} <= keys
    assert {"information_from_samples_before", "recovered_mean_image_before", "latent_r2_mean_image"} <= keys
    assert {"mutual_information", "mutual_information_set", "noise_rms_raw_0.3", "noise_ssim_prior_scale_0.4"} <= keys
    assert {"importance_bound", "posterior_gap", "largest_singular_value", "decoder_sigma"} <= keys
    assert (found.resolutions, found.channels) == ((1,), (3,))
    assert not [note for note in found.notes if note.startswith("Left out")]
    assert {path.suffix for path in out.iterdir()} == {".json", ".txt", ".png"}


@pytest.mark.parametrize("name", ["compare", "noise"])
def test_several_models_side_by_side(run: Path, tmp_path: Path, name: str) -> None:
    words = ["--out", str(tmp_path), "--examples", "3", "--images", "2", "--device", "cpu"]
    assert command(name, f"one={run}", f"two={run}", *words) == 0
    file = {"compare": "comparison.json", "noise": "noise_response.json"}[name]
    found = read_evaluations(tmp_path / file)
    assert list(found) == ["one", "two"]
    assert found["one"].quantities == found["two"].quantities


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--count", "3", "--temperature", "0.5"),
        ("reconstruct", "IMAGE", "IMAGE"),
        ("interpolate", "IMAGE", "IMAGE", "--steps", "3"),
        ("traverse", "--group", "0", "--image", "IMAGE", "--steps", "3"),
        ("traverse", "--group", "0", "--steps", "2", "--unit", "raw", "--coordinates", "latents"),
        ("swap", "IMAGE", "IMAGE"),
    ],
    ids=" ".join,
)
def test_every_picture(run: Path, images: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    files = iter(sorted(images.rglob("*.png")))
    name, *rest = [str(next(files)) if word == "IMAGE" else word for word in words]
    assert command(name, str(run), *rest, "--out", str(tmp_path / "a.png"), "--device", "cpu") == 0
    with Image.open(tmp_path / "a.png") as picture:
        picture.verify()


def test_the_report(run: Path, tmp_path: Path) -> None:
    assert command("report", str(run), "--out", str(tmp_path / "report.html")) == 0
    page = (tmp_path / "report.html").read_text()
    assert "8×8 images, 3 channels" in page


def test_dry_run_and_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("train", "--dry_run", "--latents", "7") == 0
    printed = capsys.readouterr().out
    assert "7 latents an image" in printed
    assert "plainvae" in printed  # the name of the run's folder
    assert "enc_blocks" not in printed
    assert command("--help") == 0
    assert "COMMAND [--SETTING VALUE" in capsys.readouterr().out


def test_activations_cannot_be_recomputed(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--dataset", "folder", "--data_root", str(images), "--save_dir", str(tmp_path)]
    assert command("train", *places, *TRAIN, "--checkpoint_activations") == EXIT_INPUT_ERROR
    assert "PlainVAE cannot recompute activations" in capsys.readouterr().err


def test_a_class_names_its_settings_and_they_have_names_of_their_own() -> None:
    class Nameless(PretrainedModel):
        pass

    with pytest.raises(InputError, match=r"write class Nameless\(PretrainedModel, config=…\)"):
        config_of(Nameless)

    @dataclass(frozen=True)
    class Clashing(PlainConfig):
        iters: int = 3

    with pytest.raises(InputError, match="Clashing has a setting 'iters', which a run has already"):
        settings_for(Clashing)
