"""What a film shows: its pictures, and how long each lasts."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Film(NamedTuple):
    """A film as a player sees it."""

    frames: np.ndarray
    """(frames, height, width, 3) uint8."""
    milliseconds: float
    """Of the whole film, shown once."""
    repeats: bool
    """Whether the file asks for showing it for ever."""


def film_of(path: Path) -> Film:
    """Read a GIF or WebP with Pillow, and an MP4 with ffmpeg."""
    if path.suffix == ".mp4":
        from imageio_ffmpeg import get_ffmpeg_exe

        command = [get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        done = subprocess.run(command, capture_output=True, check=True)
        about = re.search(rb"Video: h264 .*?yuv420p.*?, (\d+)x(\d+).*, ([\d.]+) fps", done.stderr)
        assert about is not None  # H.264 of 4:2:0, what every player takes
        width, height = int(about[1]), int(about[2])
        shown = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
        return Film(shown, 1000 * len(shown) / float(about[3]), False)
    with Image.open(path) as opened:
        pictures, lasting = [], 0
        for number in range(opened.n_frames):
            opened.seek(number)
            pictures.append(np.asarray(opened.convert("RGB")))
            lasting += opened.info["duration"]
        return Film(np.stack(pictures), lasting, opened.info.get("loop") == 0)
