"""`--animate` of `interpolate`, `traverse` and `noise`: what the films show, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from film_frames import film_of
from picture_commands import done, save_images, save_model
from saved_models import save_tiny, shake
from small_config import SMALL

import vdvae_lr
from vdvae_lr.cli.main import main
from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.hub.pretrained import VDVAE

FRAMES = 4


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VDVAE:
    """The model saved as `model` in the test's working folder, beside own/0.png and own/1.png."""
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(SMALL, image_channels=1)  # a GIF keeps grey exactly, but not all colours
    save_images(Path("own"), 2, config)
    return save_model(tmp_path / "model", config)


def shows(frame: np.ndarray, like: np.ndarray, side: int) -> bool:
    """Whether a frame shows this picture (8, 8, 1), enlarged to `side` pixels, somewhere."""
    wanted = like.repeat(side // 8, 0).repeat(side // 8, 1)
    corners = np.argwhere(frame[: 1 - side, : 1 - side, 0] == like[0, 0, 0])
    return any(np.array_equal(frame[y : y + side, x : x + side, :1], wanted) for y, x in corners)


def test_interpolate_shows_the_path_forth_and_back(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--steps", 2, "--animate", "gif", "--frames", FRAMES, "--fps", 10, "--path", "linear"]
    done("interpolate", "model", "own/0.png", "own/1.png", *words)
    assert capsys.readouterr().out.splitlines()[-2:] == ["wrote interpolate.png", "wrote interpolate.gif"]
    expected = vdvae_lr.interpolate(model, "own/0.png", "own/1.png", steps=FRAMES, path="linear")
    film = film_of(Path("interpolate.gif"))
    assert (len(film.frames), film.milliseconds, film.repeats) == (6, 600, True)
    for frame, number in zip(film.frames, (0, 1, 2, 3, 2, 1), strict=True):
        assert [shows(frame, picture, 384) for picture in expected] == [n == number for n in range(FRAMES)]


def test_interpolate_shows_every_choice_of_groups(model: VDVAE) -> None:
    words = ["--groups", "0:2", "4", "--animate", "gif", "--frames", FRAMES, "--no_loop", "--out", "new/a.png"]
    done("interpolate", "model", "own/0.png", "own/1.png", *words)
    film = film_of(Path("new/a.gif"))
    assert (len(film.frames), film.repeats) == (FRAMES, False)
    for groups in ("0:2", "4"):
        expected = vdvae_lr.interpolate(model, "own/0.png", "own/1.png", steps=FRAMES, groups=groups)
        assert all(shows(*each, side=192) for each in zip(film.frames, expected, strict=True))


def test_traverse_sweeps_every_channel(model: VDVAE) -> None:
    words = ["--channels", "2,0,1", "--reach", 40, "--unit", "raw", "--files", "out", "--steps", 2]
    done("traverse", "model", "--group", 3, "--image", "own/1.png", *words, "--animate", "gif", "--frames", 3)
    film = film_of(Path("traverse.gif"))
    rows = vdvae_lr.traverse(model, "own/1.png", group=3, moves=(-40, 0, 40), channels=(2, 0, 1), unit="raw")
    assert len(film.frames) == 4
    for row in rows:
        assert all(shows(film.frames[number], row[number], 192) for number in range(3))
    assert not Path("traverse.png").exists() and len(list(Path("out").iterdir())) == 6


def test_a_film_is_not_overwritten(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["traverse", "model", "--group", "0", "--animate", "gif", "--frames", "2", "--channels", "0"]
    Path("traverse.gif").write_text("an earlier film", encoding="utf-8")
    assert main(words) == EXIT_INPUT_ERROR
    assert "traverse.gif exists; name another file with --out" in capsys.readouterr().err
    assert not Path("traverse.png").exists()
    done(*words, "--overwrite")
    assert len(film_of(Path("traverse.gif")).frames) == 2


def noisy(tmp_path: Path, *words: str) -> int:
    model = tmp_path / "tiny"
    if not model.exists():
        save_tiny(model, shake, dec_blocks="1x1,8m1,8x1,32m8")
    images = ["--examples", "2", "--images", "2", "--device", "cpu", "--out", str(tmp_path / "out")]
    return main(["noise", f"a={model}", *images, *words])


def test_noise_grows(tmp_path: Path) -> None:
    words = ["--variances", "0", "0.5", "--unit", "both", "--differences", "--animate", "webp", "--frames", "4"]
    assert noisy(tmp_path, *words) == 0
    film = film_of(tmp_path / "out" / "noise_response.webp")
    assert len(film.frames) == 6
    side = 192 + 2
    rows = film.frames[:4, -8 - 5 * side : -8, -300:-8].reshape(4, 5, side, -1).astype(int)
    moved = np.abs(rows - rows[0]).mean((2, 3))  # by frame and row
    assert (moved[:, 0] < 1).all()  # the images themselves
    for row in (1, 2, 3, 4):  # raw, its difference, prior's scale, its difference
        assert (np.diff(moved[:, row]) > 0.5).all()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--animate", "gif", "--fps", "60"], "fps is 60.0; it must be at most 50"),
        (["--animate", "gif", "--fps", "0.5"], "fps is 0.5; it must be 1 or more"),
        (["--animate", "gif", "--frames", "1"], "frames is 1; it must be 2 or more"),
        (["--animate", "gif", "--images", "0"], "a film needs images and noise; give --images 1 or more"),
        (["--animate", "gif", "--variances", "0"], "a film needs images and noise; give --images 1 or more"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], cause: str
) -> None:
    assert noisy(tmp_path, *words) == EXIT_INPUT_ERROR
    assert cause in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
