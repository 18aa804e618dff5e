"""Films of pictures: GIF and animated WebP by Pillow, MP4 (H.264) by the ffmpeg program that imageio-ffmpeg brings."""

import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Literal, cast, get_args

from PIL import Image

from vdvae_lr.errors import InputError
from vdvae_lr.files.whole_file import replacing
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.picture_grid import MIN_TILE, picture_grid

FilmFormat = Literal["gif", "webp", "mp4"]
FASTEST = 50
"""Most pictures a second: a GIF counts in hundredths of a second, and browsers slow down what changes after one."""
_FRAME_WIDTH = 384  # pixels; small pictures are enlarged by a whole factor until a frame is about this wide
_LONGEST_SIDE = 4096  # pixels; few players show more
_PAPER = (255, 255, 255)
_CRF = "18"  # x264's quality; at 18 its losses are hardly seen


def film_frame(rows: Sequence[Pictures], labels: Sequence[str], columns: Sequence[str], title: str) -> Image.Image:
    """One picture of a film, laid out as `picture_grid` does, with tiles large enough to watch."""
    return picture_grid(rows, labels, columns, title, max(MIN_TILE, _FRAME_WIDTH // max(map(len, rows))))


def check_film_format(film_format: str) -> None:
    """Refuse a format that cannot be written here (raises InputError)."""
    if film_format not in get_args(FilmFormat):
        raise InputError(f"a film cannot be written as '{film_format}'; choose {', '.join(get_args(FilmFormat))}.")
    if film_format != "mp4":
        return
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise InputError(
            "an mp4 film needs imageio-ffmpeg, which is not installed; pip install 'vdvae_lr[film]', or choose gif or "
            "webp."
        )
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        get_ffmpeg_exe()
    except RuntimeError:
        raise InputError(
            "an mp4 film needs ffmpeg, and imageio-ffmpeg has none for this machine; install ffmpeg, let "
            "IMAGEIO_FFMPEG_EXE name it, or choose gif or webp."
        ) from None


def write_film(path: Path, frame: Callable[[int], Image.Image], count: int, *, fps: float, loop: bool) -> None:
    """Write a film, whole or not at all, and make its folder if needed.

    All frames get the size of the first. A larger one than players show is reduced; an MP4 gets even sides, as H.264
    needs, by a white line at its right and below.

    Args:
        path: its ending is the format: .gif, .webp or .mp4.
        frame: makes picture 0 … count − 1 of the film. It is asked for one at a time, as often as the film shows it.
        count: number of different pictures.
        fps: pictures a second, at most `FASTEST`; a GIF takes the nearest hundredth of a second for each.
        loop: the film goes back to its beginning, without showing either end twice; a GIF or WebP then repeats.

    Raises:
        InputError: the format or the place cannot be written.
    """
    film_format = path.suffix.removeprefix(".").lower()
    check_film_format(film_format)
    order = [*range(count), *(range(count - 2, 0, -1) if loop else ())]
    images = map(frame, order)
    first = _fitted(next(images))
    size = (first.width + first.width % 2, first.height + first.height % 2) if film_format == "mp4" else first.size
    first, *_ = _sized([first], size)
    frames = chain([first], _sized(map(_fitted, images), size))
    with replacing(path) as temporary:
        if film_format == "mp4":
            _write_mp4(path, temporary, frames, size, fps)
            return
        length = round(100 / fps) * 10 if film_format == "gif" else round(1000 / fps)  # milliseconds
        # A GIF repeats for ever with loop=0, and is shown once without it; a WebP is shown `loop` times, 0: for ever.
        repeats = {"loop": 0} if loop else {"loop": 1} if film_format == "webp" else {}
        next(frames).save(
            temporary, film_format.upper(), save_all=True, append_images=frames, duration=length, quality=90, **repeats
        )


def _fitted(image: Image.Image) -> Image.Image:
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return image


def _sized(images: Iterable[Image.Image], size: tuple[int, int]) -> Iterator[Image.Image]:
    """Each image at the upper left of white paper: a changing title may make one a little wider than the first."""
    for image in images:
        sheet = Image.new("RGB", size, _PAPER)
        sheet.paste(image)
        yield sheet


def _write_mp4(path: Path, temporary: Path, frames: Iterable[Image.Image], size: tuple[int, int], fps: float) -> None:
    from imageio_ffmpeg import get_ffmpeg_exe

    program = get_ffmpeg_exe()
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps:.6g}", "-i", "-"]
    coding = ["-c:v", "libx264", "-crf", _CRF, "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command = [program, "-y", "-v", "error", *source, *coding, "-f", "mp4", f"file:{temporary}"]
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads could fill and hold ffmpeg up
        try:
            ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
        except OSError as error:
            raise InputError(
                f"ffmpeg {program} cannot be started ({error.strerror or error}); let IMAGEIO_FFMPEG_EXE name another "
                "one, or choose gif or webp."
            ) from None
        with ffmpeg, suppress(BrokenPipeError), cast(IO[bytes], ffmpeg.stdin) as pipe:  # ffmpeg says why it ended
            for image in frames:
                pipe.write(image.tobytes())
        said.seek(0)
        words = said.read().decode(errors="replace").strip().splitlines()
    if ffmpeg.returncode:
        why = words[-1] if words else f"exit code {ffmpeg.returncode}"
        raise InputError(
            f"{path} cannot be written (ffmpeg: {why}); free space, choose another folder, or choose gif or webp."
        )
