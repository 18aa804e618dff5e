"""Films are read back: their pictures, order, size and speed; and what cannot be written is one sentence."""

import sys
from pathlib import Path

import numpy as np
import pytest
from film_frames import film_of
from PIL import Image

from vdvae_lr.errors import InputError
from vdvae_lr.pictures.films import film_frame, write_film

FORMATS = ["gif", "webp", "mp4"]
COUNT, SIDE = 5, 33  # an odd side, which H.264 does not have
LOSSES = {"gif": 0, "webp": 12, "mp4": 12}  # levels


def grey(number: int) -> Image.Image:
    """A picture of one level, which tells its number."""
    return Image.new("RGB", (SIDE, SIDE), (50 * number,) * 3)


@pytest.mark.parametrize("film_format", FORMATS)
@pytest.mark.parametrize("loop", [True, False])
def test_pictures_come_back_in_their_order_and_speed(tmp_path: Path, film_format: str, loop: bool) -> None:
    if film_format == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "new" / f"film.{film_format}"
    write_film(path, grey, COUNT, fps=12.5, loop=loop)
    film = film_of(path)
    order = [0, 1, 2, 3, 4, 3, 2, 1] if loop else [0, 1, 2, 3, 4]
    side = SIDE + (film_format == "mp4")
    assert film.frames.shape == (len(order), side, side, 3)
    levels = film.frames[:, :SIDE, :SIDE].astype(int)
    wanted = 50 * np.array(order)[:, None, None, None]
    inner = np.s_[:, 4:-4, 4:-4]  # compression spreads an edge over a block
    assert np.abs(levels[inner] - wanted).max() <= LOSSES[film_format]
    assert film.milliseconds == pytest.approx(80 * len(order))
    assert film.repeats == (loop and film_format != "mp4")
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_gif_takes_the_nearest_hundredth_of_a_second(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    write_film(path, grey, COUNT, fps=24, loop=False)
    assert film_of(path).milliseconds == 40 * COUNT


def test_a_frame_that_grows_is_cut_to_the_first_ones_size(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    write_film(path, lambda number: Image.new("RGB", (20 + number, 20 - number), "black"), 3, fps=10, loop=False)
    frames = film_of(path).frames
    assert frames.shape == (3, 20, 20, 3)
    assert (frames[2, :18] == 0).all() and (frames[2, 18:] == 255).all()


def test_what_no_player_shows_is_reduced(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    write_film(path, lambda number: Image.new("L", (8192, 16), number), 2, fps=10, loop=False)
    assert film_of(path).frames.shape == (2, 8, 4096, 3)


def test_small_pictures_are_enlarged_without_blur() -> None:
    small = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1), dtype=np.uint8)
    frame = np.asarray(film_frame([small], [""], (), ""))
    factor = 384 // 32
    enlarged = small[0].repeat(factor, 0).repeat(factor, 1)
    top, left = frame.shape[0] - 8 - 384, 16
    np.testing.assert_array_equal(frame[top : top + 384, left : left + 384], np.broadcast_to(enlarged, (384, 384, 3)))


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a film cannot be written as 'avi'; choose gif, webp, mp4\."):
        write_film(tmp_path / "film.avi", grey, COUNT, fps=10, loop=True)
    assert not list(tmp_path.iterdir())


def test_mp4_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"pip install 'vdvae_lr\[film\]', or choose gif or webp\."):
        write_film(tmp_path / "film.mp4", grey, COUNT, fps=10, loop=True)
    write_film(tmp_path / "film.gif", grey, COUNT, fps=10, loop=True)


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        ("exit 3", r"film\.mp4 cannot be written \(ffmpeg: exit code 3\); free space"),
        ("cat > /dev/null; echo a >&2; echo disk is full >&2; exit 1", r"cannot be written \(ffmpeg: disk is full\)"),
        ("", r"ffmpeg .*/ffmpeg cannot be started \(Permission denied\); let IMAGEIO_FFMPEG_EXE"),
    ],
)
def test_an_ffmpeg_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], program: str, cause: str
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    ffmpeg.chmod(0o755 if program else 0o644)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    (tmp_path / "film.mp4").write_text("an earlier film", encoding="utf-8")
    with pytest.raises(InputError, match=cause):
        write_film(tmp_path / "film.mp4", grey, COUNT, fps=10, loop=True)
    assert (tmp_path / "film.mp4").read_text(encoding="utf-8") == "an earlier film"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ffmpeg", "film.mp4"]
    assert capfd.readouterr() == ("", "")
