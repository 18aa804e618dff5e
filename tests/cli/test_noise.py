"""`noise` from saved weights to a table, JSON and a picture; and its messages for mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from saved_models import save_tiny, shake

from vdvae_lr.cli.main import main
from vdvae_lr.evaluation.document import read_evaluations
from vdvae_lr.hub.pretrained import VDVAE


def saved(folder: Path, seed: int, change: Callable[[VDVAE], object] = shake, **settings: Any) -> str:
    """A tiny model of four latent groups."""
    return save_tiny(folder, change, seed=seed, dec_blocks="1x1,8m1,8x1,32m8", **settings)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Words for two models of one architecture."""
    return [f"{name}={saved(tmp_path / name, seed)}" for seed, name in enumerate(("before", "after"))]


def noise(out: Path, *words: str) -> int:
    return main(["noise", *words, "--out", str(out), "--device", "cpu"])


def totals(out: Path) -> dict[str, dict[str, float]]:
    found = read_evaluations(out / "noise_response.json")
    keys = [quantity.key for quantity in next(iter(found.values())).quantities]
    return {key: {name: one.quantity(key).total.value for name, one in found.items()} for key in keys}


def test_leaves_table_json_and_picture(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert noise(out, *two, "--examples", "3", "--images", "2", "--unit", "both") == 0
    found = read_evaluations(out / "noise_response.json")["before"]
    assert (found.examples, found.split, found.dataset) == (3, "test", "fashion_small")
    assert (found.settings["noise_groups"], found.resolutions) == ("all", (1, 8, 8, 32))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed  # plain: this is no terminal
    values = totals(out)
    assert len(values) == 12 + 4 * (2 + 6)  # RMS and similarity; then active latents, and the bands of 32x32 pixels
    for key, by_model in values.items():
        assert list(by_model) == ["before", "after"]
        assert all(f"{value:.4f}" in printed for value in by_model.values())
        if "active" not in key:  # these models may have none
            assert key.endswith("_0.0") == (by_model["before"] == by_model["after"])
    with Image.open(out / "noise_response.png") as picture:
        assert picture.height // 66 == 1 + 2 * 5  # rows of 64 and a gap: the images, then five a model; and a title
    assert len(list(out.iterdir())) == 2


def test_differences_have_rows_of_their_own(two: list[str], tmp_path: Path) -> None:
    words = ["--examples", "2", "--images", "2", "--variances", "0", "0.3", "--groups", "3", "--differences"]
    assert noise(tmp_path / "out", *two, *words) == 0
    with Image.open(tmp_path / "out" / "noise_response.png") as picture:
        assert (
            picture.height // 66 == 1 + 2 * 3
        )  # the images, then a model's with and without noise, and the difference


def test_a_model_measured_alone_gets_the_same_noise(two: list[str], tmp_path: Path) -> None:
    words = ["--examples", "5", "--images", "0", "--variances", "0.2", "--groups", "8x8,3"]
    assert noise(tmp_path / "both", *two, *words) == 0
    assert noise(tmp_path / "alone", two[1], *words, "--batch", "2") == 0
    together = totals(tmp_path / "both")
    assert list(together)[:2] == ["noise_rms_raw_0.2", "noise_ssim_raw_0.2"]
    for key, by_model in totals(tmp_path / "alone").items():
        assert by_model["after"] == pytest.approx(together[key]["after"], rel=1e-5)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["noise_response.json"]
    alone = read_evaluations(tmp_path / "alone" / "noise_response.json")["after"]
    assert alone.settings["noise_groups"] == "8x8,3"


def test_by_group(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--examples", "2", "--images", "0", "--variances", "0.2", "--groups", "1"]
    assert noise(tmp_path / "out", two[0], *words, "--by_group") == 0
    found = read_evaluations(tmp_path / "out" / "noise_response.json")["before"]
    quantity = found.quantity("noise_rms_raw_0.2")
    assert len({group.value for group in quantity.groups}) == 4
    assert quantity.total == quantity.groups[1]
    assert list(quantity.resolutions) == [1, 8, 32]
    assert "only in groups of 8x8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variances", "0.3", "-0.1"], "a noise variance is -0.1; it must be"),
        (["--variances", "nan"], "variances is nan"),
        (["--variances"], "no noise variance to measure at"),
        (["--variances", "0.3", "0", "0.3"], "variances are 0.3, 0, 0.3; name each once"),
        (["--variances", "0.3", "1e80"], "variance 1e+80 makes images that are not finite; give less noise"),
        (["--groups", "7"], "'7' go beyond the last one"),
        (["--groups", "16x16"], "no latent group has resolution 16x16"),
        (["--examples", "-1"], "examples is -1; it must be 0 or more"),
        (["--batch", "0"], "batch is 0; it must be 1 or more"),
        (["--dataset", "nothing"], "nothing"),
    ],
)
def test_mistakes_end_in_one_sentence_and_lose_nothing(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    before = tmp_path / "out" / "noise_response.json"
    before.parent.mkdir()
    before.write_text("what was there")
    assert noise(before.parent, two[0], "--examples", "2", *words) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert before.read_text() == "what was there"


def test_models_must_be_alike_and_sound(two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide = saved(tmp_path / "wide", 0, zdim=3)
    assert noise(tmp_path / "out", two[0], f"wide={wide}") == 2
    assert "'before' and 'wide' differ in zdim (2 and 3)" in capsys.readouterr().err
    broken = saved(tmp_path / "broken", 0, lambda model: model.decoder.gain.fill_(torch.nan))
    assert noise(tmp_path / "out", two[0], f"broken={broken}") == 2
    assert "weights 'broken' hold numbers that are not finite" in capsys.readouterr().err
    assert noise(tmp_path / "out") == 2
    assert "there is no model to measure" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
