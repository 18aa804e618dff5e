"""`quality` from saved weights to a table and JSON: counts, the cache between models, warnings, and its refusals."""

import sys
from pathlib import Path

import pytest
from saved_models import save_tiny, shake
from stand_in_extractor import Quarters, stand_in_extractor
from torch import Tensor

from vdvae_lr.cli.main import main
from vdvae_lr.cli.quality import QualitySettings
from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.evaluation.document import Evaluation, read_evaluations
from vdvae_lr.evaluation.quality.extractor import FILE
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.hub.pretrained import VDVAE

LITTLE = ("--samples", "6", "--examples", "9", "--batch", "4", "--device", "cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the stand-in for the Inception network."""
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr("vdvae_lr.cli.shared.quality_meter.load_extractor", lambda path: stand_in_extractor())
    return tmp_path / "home"


def measure(out: Path, *words: str) -> dict[str, Evaluation]:
    assert main(["quality", *words, *LITTLE, "--out", str(out)]) == 0
    return read_evaluations(out / "quality.json")


def values(evaluation: Evaluation) -> dict[str, float]:
    return {each.key: each.total.value for each in evaluation.quantities if each.total is not None}


def test_leaves_a_table_and_everything_in_json(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"one={save_tiny(tmp_path / 'first', shake)}", save_tiny(tmp_path / "second", shake, seed=1)]
    found = measure(tmp_path / "out", *words, "--temperature", "1.0", "0.5")
    printed = capsys.readouterr().out
    assert list(found) == ["one", "second"]
    one, second = found.values()
    assert (one.dataset, one.split, one.examples) == ("fashion_small", "train", 9)
    sets = ("samples_1.0", "samples_0.5", "reconstructions")
    assert {f"{kind}_{name}" for kind in ("fid", "kid", "precision", "recall") for name in sets} <= set(values(one))
    for key in ("fid_samples_0.5", "fid_reconstructions"):
        assert values(one)[key] != values(second)[key]
        assert f"{values(one)[key]:.2f}" in printed and f"{values(second)[key]:.2f}" in printed
    assert one.details["extractor"] == {"name": "quarters", "sha256": "0123456789abcdef" * 4, "features": 4}
    assert one.details["compared_with"] == {"samples": 9, "reconstructions": 6}
    assert {"sets", "samples", "temperature", "image"} < set(one.settings)
    assert one.versions["torch"] and one.details["torchmetrics"]
    for note in one.notes:
        assert printed.count(note) == 2  # before the work, and under the table
    assert "WARNING: FID from 6 images is strongly biased upward" in one.notes[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quality.json"]


def test_the_next_model_takes_the_features_from_the_cache(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []  # pictures that the network is given

    def watched(network: Quarters, pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return forward(network, pixels)

    forward = Quarters.forward
    monkeypatch.setattr(Quarters, "forward", watched)
    model, found = save_tiny(tmp_path / "model", shake), []
    for number, (words, expected, sentence) in enumerate(
        [
            ((), 9 + 6, "are kept in"),
            ((), 6, "come from"),
            (("--split", "test"), 9 + 6, "are kept in"),
        ]
    ):
        seen.clear()
        found.append(measure(tmp_path / str(number), model, "--sets", "samples", *words)["model"])
        assert sentence in capsys.readouterr().out
        assert sum(seen) == expected
    assert values(found[0]) == values(found[1]) != values(found[2])
    assert len(list(home.rglob("*.safetensors"))) == 2


def test_what_was_measured_before_a_failure_is_kept(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def overflow(model: VDVAE) -> None:
        shake(model)
        model.decoder.gain.fill_(3e38)

    good, bad = save_tiny(tmp_path / "good", shake), save_tiny(tmp_path / "bad", overflow)
    assert main(["quality", good, bad, *LITTLE, "--out", str(tmp_path / "out")]) == EXIT_INPUT_ERROR
    assert "are NaN or infinite, so they have no quality" in capsys.readouterr().err
    assert list(read_evaluations(tmp_path / "out" / "quality.json")) == ["good"]


def test_one_run_keeps_the_numbers_beside_its_evaluation(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text("{}")
    assert QualitySettings(models=(str(run),)).folder == run / "evaluation"
    assert QualitySettings(models=(f"LR={run}",)).folder == run / "evaluation"
    assert QualitySettings(models=(str(run), "fashion")).folder == Path("quality")
    assert QualitySettings(models=("fashion",)).folder == Path("quality")
    assert QualitySettings(models=(str(run),), out="here").folder == Path("here")


def test_every_number_is_defined_in_its_document(home: Path, tmp_path: Path) -> None:
    found = measure(tmp_path / "out", save_tiny(tmp_path / "model", shake))
    text = (CHECKOUT_ROOT / "docs" / "quality.md").read_text()
    for key in values(found["model"]):
        assert (
            f"`{key.replace('_1.0', '_T').replace('_reconstructions', '_SET').replace('_samples_T', '_SET')}`" in text
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no model to measure"),
        (["{model}", "--samples", "0"], "samples is 0; it must be 1 or more"),
        (["{model}", "--samples", "3"], "there are 3 pictures of the model, but 3 nearest neighbours need 4"),
        (["{model}", "--examples", "3"], "there are 3 images of the data set"),
        (["{model}", "--temperature", "warm"], "temperature 'warm' is no number"),
        (["{model}", "--temperature", "1", "1"], "temperature are 1, 1; name each once"),
        (["{model}", "--temperature"], "temperature has no value"),
        (["{model}", "--sets"], "sets has no value"),
        (["{model}", "--batch", "0"], "batch is 0"),
        (["{model}", "other={small}"], "images of different sizes or channels; measure them apart"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    places = {"model": save_tiny(tmp_path / "model", shake)}
    if "other={small}" in words:
        blocks = {"enc_blocks": "8x1,8d8,1x1", "dec_blocks": "1x1,8m1"}
        places["small"] = save_tiny(tmp_path / "small", shake, image_size=8, **blocks)
    out = tmp_path / "out"
    filled = [word.format(**places) for word in words]
    assert main(["quality", *LITTLE, "--out", str(out), *filled]) == EXIT_INPUT_ERROR
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert not out.exists()  # it is refused before any work


def test_a_wrong_extractor_and_a_missing_package_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "model", shake)
    words = ["quality", model, *LITTLE, "--out", str(tmp_path / "out"), "--extractor", f"{model}/model.safetensors"]
    assert main(words) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert "does not hold the weights of FID's Inception network" in error and FILE in error
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    assert main(words) == EXIT_INPUT_ERROR
    assert "pip install 'vdvae_lr[quality]'" in capsys.readouterr().err
