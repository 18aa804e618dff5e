"""`vdvae-lr sample`: the pixels of grids and files, and what is already there."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_commands import done, pixels_of, save_images, save_model, tiles_of
from PIL import Image
from small_config import SMALL

import vdvae_lr
from vdvae_lr.cli.main import main
from vdvae_lr.cli.shared.picture_output import Studio
from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.weight_folder import write_weights
from vdvae_lr.pictures.images import Pictures


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VDVAE:
    """The model saved as `model` in the test's working folder."""
    monkeypatch.chdir(tmp_path)
    return save_model(tmp_path / "model")


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command ends with."""
    assert main([str(word) for word in words]) == EXIT_INPUT_ERROR
    captured = capsys.readouterr().err
    assert captured.startswith("error: ") and captured.count("\n") == 1
    return captured


def test_a_grid_of_the_samples(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    done("sample", "model", "--count", 5, "--seed", 3, "--batch", 2)
    assert capsys.readouterr().out.endswith("wrote sample.png\n")
    drawn = vdvae_lr.sample(model, 5, seed=3, batch=2)
    found = tiles_of(Path("sample.png"), 2, 3).reshape(6, 8, 8, 3)
    np.testing.assert_array_equal(found[:5], drawn)
    assert (found[5] == 255).all()  # paper


def test_the_same_call_gives_the_same_bytes_and_another_batch_the_same_pictures(model: VDVAE) -> None:
    for name, batch in (("a", 5), ("b", 5), ("c", 2)):
        done("sample", "model", "--count", 5, "--batch", batch, "--out", f"{name}.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    whole, parts = (tiles_of(Path(f"{name}.png"), 2, 3).astype(int) for name in "ac")
    assert (whole != parts).mean() < 0.01 and abs(whole - parts).max() <= 1


def test_a_row_for_each_temperature_from_the_same_noise(model: VDVAE) -> None:
    words = ["1.0", "0", "4:0.3,8x8:0.1"]
    done("sample", "model", "--count", 3, "--temperature", *words, "--image", "mean")
    found = tiles_of(Path("sample.png"), 3, 3)
    for row, temperature in zip(found, words, strict=True):
        np.testing.assert_array_equal(row, vdvae_lr.sample(model, 3, temperature=temperature, image="mean"))
    np.testing.assert_array_equal(found[1], np.broadcast_to(found[1, :1], found[1].shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_single_files_are_the_pictures_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_model(tmp_path / "model", dataclasses.replace(SMALL, image_channels=channels))
    done("sample", "model", "--count", 5, "--files", "out", "--batch", 2)
    paths = sorted(Path("out").iterdir())
    assert [path.name for path in paths] == [f"sample-{number:06}.png" for number in range(5)]
    found = np.stack([pixels_of(path) for path in paths])
    assert found.shape == ((5, 8, 8) if channels == 1 else (5, 8, 8, 3))
    np.testing.assert_array_equal(found.reshape(5, 8, 8, channels), vdvae_lr.sample(model, 5, batch=2))
    assert sorted(Path().iterdir()) == [Path("model"), Path("out")]  # no grid


def test_any_number_of_files_is_drawn_a_batch_at_a_time(model: VDVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, add, events = VDVAE.generate, Studio.add, []

    def remember(self: VDVAE, batch: int, *arguments: object, **options: object) -> object:
        events.append(f"made {batch}")
        return generate(self, batch, *arguments, **options)  # type: ignore[arg-type]

    def remember_added(self: Studio, pictures: Pictures) -> None:
        events.append(f"added {len(pictures)}")
        add(self, pictures)

    monkeypatch.setattr(VDVAE, "generate", remember)
    monkeypatch.setattr(Studio, "add", remember_added)
    done("sample", "model", "--count", 7, "--files", "out", "--batch", 3)
    assert events == ["made 3", "added 3", "made 3", "added 3", "made 1", "added 1"]
    assert len(list(Path("out").iterdir())) == 7


def test_grid_and_files_together(model: VDVAE) -> None:
    done("sample", "model", "--count", 2, "--files", "out", "--out", "new/grid.png")
    assert len(list(Path("out").iterdir())) == 2
    assert Path("new/grid.png").is_file()


def test_what_is_there_stays_until_it_is_to_be_replaced(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    done("sample", "model", "--count", 3, "--files", "out", "--out", "grid.png")
    before = {path: path.read_bytes() for path in [Path("grid.png"), *Path("out").iterdir()]}
    assert "grid.png exists; name another file with --out, or replace it with --overwrite" in refusal(
        capsys, "sample", "model", "--out", "grid.png"
    )
    assert "out holds 3 pictures of an earlier call (sample-000000.png is one)" in refusal(
        capsys, "sample", "model", "--files", "out"
    )
    refusal(capsys, "sample", "model", "--files", "out", "--overwrite", "--temperature", "hot")
    assert {path: path.read_bytes() for path in before} == before
    Path("out/sample-mine.png").write_bytes(b"mine")
    done("sample", "model", "--count", 2, "--files", "out", "--out", "grid.png", "--overwrite", "--seed", 1)
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "sample-000000.png",
        "sample-000001.png",
        "sample-mine.png",
    ]
    assert Path("grid.png").read_bytes() != before[Path("grid.png")]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--count", 0], "count is 0; it must be 1 or more."),
        (["--batch", 0], "batch is 0; it must be 1 or more."),
        (["--out", "folder"], "out is folder; the grid is one .png file (single pictures go to --files FOLDER)."),
        (["--temperature", "16:0.5"], "no latent group has resolution 16x16"),
        (["--temperature", "1", "0.9,1"], "2 temperatures for 5 latent groups"),
        (["--temperature", "1", "0.9", "--files", "out"], "2 temperatures would be mixed in out; give one of them."),
        (["--temperature"], "temperature has no value"),
        (["--count", 20_000], "a grid of 20,022 pictures of 8x8 would be too large to open"),
        (["--files", "model/config.json"], "model/config.json is a file; name a folder"),
    ],
)
def test_what_cannot_be_done(model: VDVAE, capsys: pytest.CaptureFixture[str], words: list[object], cause: str) -> None:
    assert cause in refusal(capsys, "sample", "model", *words)
    assert [path.name for path in Path().iterdir()] == ["model"]


def test_weights_that_are_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = save_model(tmp_path / "model").state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    write_weights(tmp_path / "model" / "model.safetensors", state)
    assert "weights 'model' hold numbers that are not finite" in refusal(capsys, "sample", "model")


def test_an_image_file_is_never_written_over(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    save_images(Path("own"), 1)
    before = Path("own/0.png").read_bytes()
    words = ["reconstruct", "model", "own/0.png", "--overwrite"]
    assert "own/0.png is among the images to read" in refusal(capsys, *words, "--out", "own/0.png")
    assert Path("own/0.png").read_bytes() == before
    done("reconstruct", "model", "own/0.png", "--files", "own")
    assert "is among the images to read" in refusal(
        capsys, "reconstruct", "model", "own", "--files", "own", "--overwrite"
    )


def test_help_needs_no_torch() -> None:
    code = "import sys, vdvae_lr.cli.main as main; main.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_pictures_open_as_png(model: VDVAE) -> None:
    done("sample", "model", "--count", 1)
    with Image.open("sample.png") as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
