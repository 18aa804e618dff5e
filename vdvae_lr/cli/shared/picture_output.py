"""What the commands that make pictures of one model share: the model, the device, and where the pictures go.

A command writes a grid (`--out FILE.png`), single files (`--files FOLDER`), or both. Nothing that is there is
overwritten or mixed with, unless it is told to by `--overwrite`.

Shapes: C channels (1 or 3), H W resolution.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import tyro
from PIL import Image

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.cli.shared.loaded_models import load_model
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import entries, exists, is_file, is_folder
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.pictures.image_files import single_picture
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.setting_checks import AtOnce, PathText, check_settings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """One model, and where its pictures go."""

    COMMAND: ClassVar[str]
    """Names the grid where `out` does not, and begins the single files' names."""
    NAMES: ClassVar[str] = ""
    """Pattern of what single files are called behind their number; empty: nothing."""

    source: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run's folder, a folder or file of weights, or a bundled or published name."""
    out: PathText = ""
    """The grid to write, a .png file; empty: the command's name with .png, or no grid where --files is given."""
    files: PathText = ""
    """Folder for single pictures at their own size, as numbered PNG files; empty: none."""
    overwrite: bool = False
    """Replace a grid that exists, and the single files of an earlier call in the folder."""
    seed: int = 0
    """Of all noise."""
    batch: AtOnce = 32
    """Pictures at once, for memory and time; they are the same but for rounding."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (published .th files)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be done; raises InputError."""
        check_settings(self)
        if self.out and Path(self.out).suffix.lower() != ".png":
            raise InputError(f"out is {self.out}; the grid is one .png file (single pictures go to --files FOLDER).")

    @property
    def grid(self) -> Path | None:
        """The grid's file; None: single files only."""
        return Path(self.out or f"{self.COMMAND}.png") if self.out or not self.files else None

    @property
    def folder(self) -> Path | None:
        """Of the single files; None: none."""
        return Path(self.files) if self.files else None


class PictureWriter:
    """Writes a command's pictures, and nothing over what was there unless told to.

    An earlier set that is to be replaced goes only when the new one is whole: until then its files are written over
    where names are the same, and left where not.

    Args:
        settings: of the command.
        inputs: image files that the command reads: they are never written over.

    Raises:
        InputError: the grid exists, or the folder has single files of an earlier call, and --overwrite is not given;
            one of them is an input; the grid has a single file's name; or a place that cannot be written.
    """

    def __init__(self, settings: PictureSettings, inputs: Sequence[Path] = ()) -> None:
        self._command, self._grid, self._folder = settings.COMMAND, settings.grid, settings.folder
        self._ours = re.compile(rf"{settings.COMMAND}-\d{{6,}}{settings.NAMES}\.png", re.DOTALL)
        self._written = 0
        self._check_places()
        self._earlier = self._files_of_an_earlier_call()
        self._left = set(self._earlier)
        read = {path.resolve() for path in inputs}
        for path in [*([self._grid] if self._grid else []), *self._earlier]:
            if path.resolve() in read:
                raise InputError(f"{path} is among the images to read, and would be replaced; write somewhere else.")
        if settings.overwrite:
            return
        if self._grid is not None and exists(self._grid):
            raise InputError(f"{self._grid} exists; name another file with --out, or replace it with --overwrite.")
        if self._earlier:
            raise InputError(
                f"{self._folder} holds {counted(len(self._earlier), 'picture')} of an earlier call "
                f"({self._earlier[0].name} is one); name another folder with --files, or replace them with --overwrite."
            )

    @property
    def wants_grid(self) -> bool:
        """Whether a grid is to be written."""
        return self._grid is not None

    def grid(self, picture: Image.Image) -> None:
        """Write the grid (raises InputError where it cannot be written)."""
        assert self._grid is not None
        save_png(picture, self._grid)

    def singles(self, pictures: Pictures, names: Iterable[str] | None = None) -> None:
        """Write pictures (B, H, W, C) as FOLDER/COMMAND-NUMBER-NAME.png, where single files are wanted.

        Raises:
            InputError: the folder cannot be written.
        """
        if self._folder is None:
            return
        for picture, name in zip(pictures, names or [""] * len(pictures), strict=True):
            ending = f"-{name}" if name else ""
            path = self._folder / f"{self._command}-{self._written:06}{ending}.png"
            save_png(single_picture(picture), path)
            self._written += 1
            self._left.discard(path)

    def finish(self, say: Callable[[str], None]) -> None:
        """Remove what is left of an earlier set, and say what was written.

        Raises:
            InputError: the folder does not let go of them.
        """
        self._remove_earlier()
        if self._grid is not None:
            say(f"wrote {self._grid}")
        if self._folder is not None:
            say(f"wrote {counted(self._written, 'single picture')} to {self._folder}")

    def _remove_earlier(self) -> None:
        try:
            for path in self._left:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{self._folder} keeps pictures of an earlier call beside the new ones ({error.strerror or error}); "
                "remove them yourself."
            ) from None

    def _check_places(self) -> None:
        if self._folder is not None:
            if is_file(self._folder):
                raise InputError(f"{self._folder} is a file; name a folder for single pictures with --files.")
            _check_writable(self._folder, self._folder, os.R_OK)
        if self._grid is None:
            return
        _check_writable(self._grid, self._grid.parent)
        if is_folder(self._grid):
            raise InputError(f"{self._grid} is a folder; name a file for the grid with --out.")
        among = self._folder is not None and self._grid.parent.resolve() == self._folder.resolve()
        if among and self._ours.fullmatch(self._grid.name):
            raise InputError(
                f"{self._grid} has the name of a single picture in {self._folder}, and one would replace the other; "
                "name another file with --out."
            )

    def _files_of_an_earlier_call(self) -> list[Path]:
        if self._folder is None:
            return []
        return sorted(path for path in entries(self._folder) if self._ours.fullmatch(path.name))


@dataclass(frozen=True)
class Studio:
    """What a command makes pictures with."""

    model: PretrainedModel
    writer: PictureWriter
    tracker: ConsoleTracker
    say: Callable[[str], None]

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Of the latent groups, top-down."""
        return self.model.resolutions


def make_pictures(settings: PictureSettings, work: Callable[[Studio], None], inputs: Sequence[Path] = ()) -> None:
    """Load the model and let `work` make pictures, on one process; says at the end what was written.

    Args:
        settings: of the command.
        work: makes the pictures, and hands them to the writer.
        inputs: image files that it reads.

    Raises:
        InputError: weights that cannot be used, a place that is taken, and whatever `work` refuses.
    """
    writer = PictureWriter(settings, inputs)
    with joined_world(settings.device) as world:
        world.on_main(lambda: _make_here(settings, work, writer, world))


def _make_here(settings: PictureSettings, work: Callable[[Studio], None], writer: PictureWriter, world: World) -> None:
    alone = World(0, 1, world.device)
    model = load_model(settings.source, model_settings(settings.hps), settings.weights, alone)
    console = plain_console()
    work(Studio(model, writer, ConsoleTracker(console), console.print))
    writer.finish(console.print)


def counted(count: int, thing: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _check_writable(path: Path, folder: Path, besides: int = 0) -> None:
    """Refuse a place before any work is done for it; raises InputError.

    Args:
        path: what will be written.
        folder: that must be there, or be made.
        besides: `os.access` flags beyond those for writing.
    """
    there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    if not there.is_dir():
        raise InputError(f"{path} cannot be written ({there} is no folder); choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK | besides):
        raise InputError(f"{path} cannot be written (no permission for {there}); choose another folder.")
