"""`evaluate` from weights or a run to table, JSON and pictures, and its messages for what cannot be evaluated."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from saved_models import save_tiny
from short_runs import change_settings, copied, short_run
from training_runs import ALONE, assert_same_bits

import vdvae_lr
from vdvae_lr.cli.evaluate import EvaluateSettings, run
from vdvae_lr.cli.main import main
from vdvae_lr.cli.shared import measured_models
from vdvae_lr.cli.shared.loaded_models import load_start_of_run
from vdvae_lr.cli.shared.measured_models import model_name
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.inventory import take_inventory
from vdvae_lr.datasets.sources import ArraySource, Splits
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.evaluation import sections
from vdvae_lr.evaluation.document import read_evaluation
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.task import Task
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.processes.world import World

LITTLE = (
    *("--mixture_batch", "2", "--mixture_images", "3", "--importance_images", "2", "--importance_draws", "2"),
    *("--gap_images", "1", "--jacobian_images", "0", "--noise_images", "2"),
    *("--device", "cpu", "--batch", "4"),
)
NOISE = {f"noise_{unit}_{variance}.png" for unit in ("raw", "prior_scale") for variance in ("0.3", "0.4")}
FILES = {"evaluation.json", "evaluation.txt", "nearest_collapse.png", "samples.png", *NOISE}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Saves a tiny model after a change; returns its folder."""

    def save_changed(change: Callable[[VDVAE], None] = lambda model: None, name: str = "tiny") -> str:
        return save_tiny(tmp_path / name, change)

    return save_changed


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Makes `evaluate` measure only the first two sections; returns what they were given."""
    seen: list[Task] = []
    first, second = sections.SECTIONS[:2]

    def remembered(task: Task) -> Findings:
        seen.append(task)
        return first(task)

    monkeypatch.setattr(sections, "SECTIONS", (remembered, second))
    return seen


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("short"))


def settings_of(*words: str) -> EvaluateSettings:
    return tyro.cli(EvaluateSettings, args=list(words), use_underscores=True)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that the command prints when it refuses its input."""
    assert main(["evaluate", *words]) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_leaves_table_json_and_pictures(
    save: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All sections but the slowest, on a model whose middle group is the same for every image."""

    def silence(model: VDVAE) -> None:
        for network in (model.decoder.blocks[1].posterior.expand, model.decoder.blocks[1].prior.expand):
            network.weight.zero_()
            network.bias.zero_()

    out = tmp_path / "out"
    run(settings_of(save(silence), "--out", str(out), "--examples", "3", "--images", "2", "--name", "a name", *LITTLE))
    assert {path.name for path in out.iterdir()} == FILES
    found = read_evaluation(out)
    assert (found.name, found.dataset, found.split, found.examples) == ("a name", "fashion_small", "test", 3)
    assert (found.resolutions, found.dimensions, found.model["zdim"]) == ((1, 8, 32), 1024, 2)
    assert found.versions["device"] == "cpu"
    assert found.settings["mixture_images"] == 3
    assert found.inventory == take_inventory(open_splits(DataSettings("fashion_small"), 32, 1))
    rate = found.quantity("rate")
    assert rate is not None
    assert rate.groups[1].value == 0
    assert any("group 1 is the same for every image" in note for note in found.notes)
    assert found.inputs is not None
    assert len(found.inputs.nearest_collapse) == 3
    json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail)
    printed = capsys.readouterr().out
    assert (out / "evaluation.txt").read_text() in printed
    assert "\x1b" not in printed  # plain: this is no terminal
    assert printed.startswith("Images: ")
    assert "posterior passes" in printed
    for name in FILES - {"evaluation.json", "evaluation.txt"}:
        with Image.open(out / name) as picture:
            picture.verify()


def test_pictures_of_an_earlier_evaluation_go(save: Callable[..., str], tmp_path: Path, task: list[Task]) -> None:
    common = (save(), "--out", str(tmp_path / "out"), "--examples", "4", *LITTLE)
    run(settings_of(*common))
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    (tmp_path / "out" / "noise_response.png").touch()  # as an earlier version left it
    run(settings_of(*common, "--noise_images", "0"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - NOISE
    run(settings_of(*common, "--images", "0"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "evaluation.txt"}


def test_batch_changes_no_number(save: Callable[..., str], tmp_path: Path, task: list[Task]) -> None:
    folder = save()
    found = []
    for batch in ("2", "5"):
        out = tmp_path / batch
        run(settings_of(folder, "--out", str(out), "--examples", "5", "--images", "0", *LITTLE, "--batch", batch))
        found.append({each.key: each.total.value for each in read_evaluation(out).quantities if each.total})
        assert {path.name for path in out.iterdir()} == {"evaluation.json", "evaluation.txt"}
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert [one.measuring.batch for one in task] == [2, 5]


def test_a_run_brings_folder_data_and_the_model_it_started_from(
    a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: list[Task]
) -> None:
    """The second run started from the first one's weights; its images lie where its settings say."""
    fine_tuned = short_run(tmp_path, pretrained=str(a_run), iters=1)
    monkeypatch.chdir(tmp_path)
    run(settings_of(str(fine_tuned), *LITTLE))
    found = read_evaluation(fine_tuned / "evaluation")
    assert (found.name, found.dataset, found.settings["before"]) == ("run", "folder", str(a_run))
    before = vdvae_lr.VDVAE.from_pretrained(a_run)
    assert task[0].before is not None
    assert torch.equal(task[0].before.decoder.gain, before.decoder.gain)
    assert not torch.equal(task[0].model.decoder.gain, before.decoder.gain)
    assert not found.notes


def test_the_model_before_may_be_named_or_left_out(
    save: Callable[..., str], a_run: Path, tmp_path: Path, task: list[Task], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = save(), save(lambda model: model.decoder.gain.mul_(2), "other")
    common = (one, "--out", str(tmp_path / "out"), "--examples", "4", *LITTLE)
    run(settings_of(*common, "--before", two))
    run(settings_of(*common, "--before", "none"))
    assert task[0].before is not None
    assert torch.equal(task[0].before.decoder.gain, 2 * task[0].model.decoder.gain)
    assert task[1].before is None
    assert "image_size 8, here 32" in refusal(capsys, *common, "--before", str(a_run))


def test_a_start_that_cannot_be_found_is_left_out_and_said(a_run: Path, tmp_path: Path, task: list[Task]) -> None:
    changed = copied(a_run, tmp_path)
    change_settings(changed, pretrained="gone/away.th")
    run(settings_of(str(changed), "--out", str(tmp_path / "out"), *LITTLE))
    assert task[0].before is None
    (note,) = read_evaluation(tmp_path / "out").notes
    assert note.startswith("The model before fine-tuning, 'gone/away.th', is left out; name it with --before.")
    assert "gone/away.th does not exist" in note


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda model: model.decoder.gain.fill_(math.nan), "hold numbers that are not finite"),
        (lambda model: None, "other settings"),
    ],
)
def test_a_start_that_cannot_be_used_is_left_out_and_said(
    a_run: Path, tmp_path: Path, task: list[Task], change: Callable[[VDVAE], None], why: str
) -> None:
    """The start has weights that are not finite, or another architecture."""
    settings = {} if why == "other settings" else vars(vdvae_lr.VDVAE.from_pretrained(a_run).config)
    changed = copied(a_run, tmp_path)
    change_settings(changed, pretrained=save_tiny(tmp_path / "start", change, **settings))
    run(settings_of(str(changed), "--out", str(tmp_path / "out"), *LITTLE))
    assert task[0].before is None
    (note,) = read_evaluation(tmp_path / "out").notes
    assert note.startswith("The model before fine-tuning, '")
    assert why in note


@pytest.mark.parametrize("differing", ["unusable", "weights"])
def test_all_processes_leave_out_a_start_that_one_cannot_use(
    a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differing: str
) -> None:
    """This process can use it; the other one has other weights, or none."""
    fine_tuned = copied(a_run, tmp_path)
    change_settings(fine_tuned, pretrained=str(a_run))
    model = vdvae_lr.VDVAE.from_pretrained(fine_tuned)
    monkeypatch.setattr(World, "highest", lambda self, number: max(number, differing == "unusable"))
    monkeypatch.setattr(World, "agree", lambda self, number: differing != "weights")
    before, name, note = load_start_of_run(model, WeightSettings(), ALONE)
    assert (before, name) == (None, "")
    assert {"unusable": "Another process cannot use it.", "weights": "found different weights"}[differing] in note


@pytest.mark.parametrize("setting", ["restore_path", "restore_ema_path"])
def test_the_model_before_has_the_weights_that_the_average_started_from(
    a_run: Path, tmp_path: Path, setting: str
) -> None:
    """`restore_path` alone names weights before averaging."""
    fine_tuned = copied(a_run, tmp_path)
    change_settings(fine_tuned, **{setting: str(a_run)})
    before, _, _ = load_start_of_run(vdvae_lr.VDVAE.from_pretrained(fine_tuned), WeightSettings(), ALONE)
    assert before is not None
    expected = vdvae_lr.VDVAE.from_pretrained(a_run, ema=setting == "restore_ema_path")
    other = vdvae_lr.VDVAE.from_pretrained(a_run, ema=setting == "restore_path")
    assert_same_bits(dict(before.state_dict()), dict(expected.state_dict()))
    assert any(not torch.equal(tensor, other.state_dict()[name]) for name, tensor in before.state_dict().items())


def test_a_run_from_scratch_has_no_model_before(a_run: Path, tmp_path: Path, task: list[Task]) -> None:
    run(settings_of(str(a_run), "--out", str(tmp_path / "out"), *LITTLE))
    found = read_evaluation(tmp_path / "out")
    assert (task[0].before, found.settings["before"], found.notes) == (None, "", ())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(
    save: Callable[..., str], capsys: pytest.CaptureFixture[str], value: float
) -> None:
    def spoil(model: VDVAE) -> None:
        model.decoder.blocks[2].prior.expand.bias[1] = value

    assert "decoder.blocks.2.prior.expand.bias" in refusal(capsys, save(spoil), *LITTLE)


def test_a_run_without_checkpoints(a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    young = copied(a_run, tmp_path)
    for path in (young / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    assert "has no checkpoint yet" in refusal(capsys, str(young), *LITTLE)


def test_no_images(
    save: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none = ArraySource(np.zeros((0, 8, 8, 3), np.uint8), np.arange(0), "nothing")
    monkeypatch.setattr(measured_models, "open_splits_together", lambda *arguments: Splits(none, none, none))
    assert "there are no images to evaluate on" in refusal(capsys, save(), *LITTLE)


def test_fewer_images_than_a_mixture(
    save: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: list[Task]
) -> None:
    words = ("--examples", "3", *LITTLE, "--mixture_batch", "4", "--out", str(tmp_path / "out"))
    error = refusal(capsys, save(), *words)
    assert "3 images cannot fill a mixture of 4" in error
    assert task == []


def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    save: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str], task: list[Task]
) -> None:
    (tmp_path / "file").write_text("mine")
    error = refusal(capsys, save(), "--out", str(tmp_path / "file"), *LITTLE)
    assert "cannot be written" in error
    assert "--out" in error
    assert task == []
    assert (tmp_path / "file").read_text() == "mine"


def test_unknown_data_asks_for_a_name(save: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = save()
    config = Path(folder) / "config.json"
    config.write_text(config.read_text().replace("fashion_small", ""))
    assert "name a data set with --dataset" in refusal(capsys, folder, *LITTLE)


def test_convolutions_are_float32(
    save: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def stand_in(task: Task) -> Findings:
        seen.append(torch.backends.cudnn.allow_tf32)
        raise InputError("enough")

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(sections, "SECTIONS", (stand_in,))
    assert "enough" in refusal(capsys, save(), "--out", str(tmp_path / "out"), *LITTLE)
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32


def test_weights_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are no weights 'fashoin' (did you mean 'fashion'?)" in refusal(capsys, "fashoin")


@pytest.mark.parametrize(("name", "value"), [("examples", -1), ("images", -1), ("batch", 0)])
def test_impossible_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}; it must be"):
        EvaluateSettings(model="fashion", **{name: value})


@pytest.mark.parametrize(
    ("source", "name", "folder"),
    [
        ("fashion", "fashion", "evaluation-fashion"),
        ("weights/step-10.th", "step-10", "evaluation-step-10"),
        ("somebody/lrvdvae-0.5", "lrvdvae-0.5", "evaluation-lrvdvae-0.5"),
        ("https://user:secret@host/a/w.safetensors?token=secret", "w", "evaluation-w"),
    ],
)
def test_names_and_folders(source: str, name: str, folder: str) -> None:
    assert model_name(source) == name
    assert EvaluateSettings(model=source).folder == Path(folder)
    assert EvaluateSettings(model=source, out="x").folder == Path("x")


def test_no_noise_is_no_picture(save: Callable[..., str], tmp_path: Path, task: list[Task]) -> None:
    out = tmp_path / "out"
    words = ("--examples", "4", "--images", "2", "--noise_variances", "0")
    run(settings_of(save(), "--out", str(out), *LITTLE, *words))
    assert {path.name for path in out.iterdir()} == FILES - NOISE


def test_noise_that_makes_no_images_is_a_note(
    save: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other sections are measured. Of the pictures, only that of this noise is left out."""
    monkeypatch.setattr(sections, "SECTIONS", (sections.SECTIONS[0], sections.measure_noise))
    out = tmp_path / "out"
    run(settings_of(save(), "--out", str(out), "--examples", "4", *LITTLE, "--noise_variances", "0.3", "1e80"))
    found = read_evaluation(out)
    (note,) = found.notes
    assert "variance 1e+80 makes images that are not finite" in note
    assert {quantity.key for quantity in found.quantities} >= {"rate", "distortion"}
    drawn = {"noise_raw_0.3.png", "noise_prior_scale_0.3.png"}
    assert {path.name for path in out.iterdir()} == FILES - NOISE | drawn
    assert "No noise_raw_1e+80.png: latent noise of variance 1e+80" in capsys.readouterr().out
