"""`compare` from saved weights to a table, JSON and pictures; and its messages for mistakes."""

from pathlib import Path

import pytest
import tyro
from PIL import Image
from saved_models import save_tiny
from stand_in_extractor import stand_in_extractor

from vdvae_lr.cli.compare import CompareSettings, run
from vdvae_lr.cli.main import main
from vdvae_lr.cli.shared.measured_models import named_sources
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import read_evaluations


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Folders of two saved models of one architecture."""
    return [save_tiny(tmp_path / f"model-{seed}", seed=seed) for seed in range(2)]


def settings_of(*words: str) -> CompareSettings:
    return tyro.cli(CompareSettings, args=list(words), use_underscores=True)


def test_leaves_table_json_and_pictures(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [f"before={folders[0]}", f"after={folders[1]}", "--out", str(out), "--device", "cpu"]
    run(settings_of(*words, "--examples", "3", "--images", "2", "--content_dimensions", "784"))
    found = read_evaluations(out / "comparison.json")
    first = found["before"]
    assert (first.examples, first.split, first.dataset) == (3, "test", "fashion_small")
    values = {name: one.quantity("negative_elbo").total.value for name, one in found.items()}
    assert values["before"] != values["after"]
    printed = capsys.readouterr().out
    assert all(f"{values[name]:.4f}" in printed for name in ("before", "after"))
    assert "before: information from samples" in printed
    assert "\x1b" not in printed  # plain: this is no terminal
    assert "bound on 784 dims" in printed
    for name in ("reconstructions.png", "samples.png", "noise_response.png"):
        with Image.open(out / name) as picture:
            picture.verify()
    assert len(list(out.iterdir())) == 4


def test_quality_of_pictures_where_asked_for(
    folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr("vdvae_lr.cli.shared.quality_meter.load_extractor", lambda path: stand_in_extractor())
    words = [*(f"{name}={folder}" for name, folder in zip("ab", folders, strict=True)), "--device", "cpu"]
    words += ["--examples", "9", "--images", "0"]
    run(settings_of(*words, "--quality_samples", "6", "--out", str(tmp_path / "compared")))
    printed = " ".join(capsys.readouterr().out.split())  # the caption is wrapped
    compared = read_evaluations(tmp_path / "compared" / "comparison.json")
    assert "FID, samples, temperature 1.0" in printed and "KID, reconstructions" in printed
    assert "bound (-ELBO), nats/dim" in printed and "FID, KID: 0 for equal distributions" in printed
    assert printed.count("a, b: WARNING: FID from 6 images") == 1
    assert main(["quality", *words[:-2], "--split", "test", "--samples", "6", "--out", str(tmp_path / "alone")]) == 0
    for name, alone in read_evaluations(tmp_path / "alone" / "quality.json").items():
        for quantity in alone.quantities:
            assert compared[name].quantity(quantity.key) == quantity
        assert compared[name].details["compared_with"] == alone.details["compared_with"]
        assert set(alone.notes) <= set(compared[name].notes)


def test_quality_of_too_few_pictures_is_refused_before_any_work(folders: list[str], tmp_path: Path) -> None:
    words = [f"a={folders[0]}", "--examples", "9", "--out", str(tmp_path / "out"), "--quality_samples", "3"]
    with pytest.raises(InputError, match="there are 3 pictures of the model, but 3 nearest neighbours need 4"):
        run(settings_of(*words))
    assert not list((tmp_path / "out").iterdir())


def test_batch_changes_no_number(folders: list[str], tmp_path: Path) -> None:
    numbers = []
    for batch in ("2", "5"):
        out = tmp_path / batch
        run(settings_of(f"one={folders[0]}", "--out", str(out), "--examples", "5", "--images", "0", "--batch", batch))
        found = read_evaluations(out / "comparison.json")["one"]
        numbers.append({quantity.key: quantity.total.value for quantity in found.quantities if quantity.total})
        assert list(out.iterdir()) == [out / "comparison.json"]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no model to measure"),
        (["runs/lr"], "'runs/lr' names no model; write NAME="),
        (["=runs/lr"], "names no model"),
        (["a="], "names no model"),
        (["a=x", "a=y"], "two models are called 'a'"),
    ],
)
def test_models_need_names(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_sources(words)


def test_only_the_first_equals_sign_divides() -> None:
    assert named_sources(["a=runs/lr=0.1"]) == {"a": "runs/lr=0.1"}


@pytest.mark.parametrize(("name", "value"), [("examples", -1), ("images", -1), ("batch", 0)])
def test_impossible_settings_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}; it must be"):
        CompareSettings(models=("a=b",), **{name: value})


def test_unknown_data_asks_for_a_name(tmp_path: Path, folders: list[str]) -> None:
    config = Path(folders[0]) / "config.json"
    config.write_text(config.read_text().replace("fashion_small", ""))
    with pytest.raises(InputError, match="name a data set with --dataset"):
        run(settings_of(f"one={folders[0]}", "--out", str(tmp_path / "out")))
