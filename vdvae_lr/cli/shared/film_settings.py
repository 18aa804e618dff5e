"""The film that `interpolate`, `traverse` and `noise` write with --animate."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image

from vdvae_lr.pictures.films import FASTEST, check_film_format, write_film
from vdvae_lr.setting_checks import Between


@dataclass(frozen=True, kw_only=True)
class FilmSettings:
    """Whether there is a film, and how it runs."""

    animate: Literal["", "gif", "webp", "mp4"] = ""
    """Also write a film in this format, beside the grid of pictures and with its name; empty: none."""
    frames: Annotated[int, Between(2, 10_000)] = 48
    """Number of different pictures in the film."""
    fps: Annotated[float, Between(1, FASTEST)] = 20.0
    """Pictures of the film a second."""
    loop: bool = True
    """The film goes forth and back, and a GIF or WebP repeats for ever; else it goes once from beginning to end."""

    def film_beside(self, grid: Path) -> Path | None:
        """Where the film goes, if one is wanted (raises InputError if it could not be written here)."""
        if not self.animate:
            return None
        check_film_format(self.animate)
        return grid.with_suffix(f".{self.animate}")

    def write_film(self, path: Path, frame: Callable[[int], Image.Image]) -> None:
        """Write the film of `frame`'s pictures 0 … frames − 1; errors as in `films.write_film`."""
        write_film(path, frame, self.frames, fps=self.fps, loop=self.loop)
