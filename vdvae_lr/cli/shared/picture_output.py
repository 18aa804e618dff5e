"""What the commands that make pictures of one model share: its settings, the images to read, and where pictures go.

A command writes a grid (`--out FILE.png`), single files (`--files FOLDER`), or both, and some commands a film with the
grid's name (`--animate`). It overwrites nothing without `--overwrite`.

Shapes: B pictures, C channels (1 or 3), H W resolution.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro
from PIL import Image

from vdvae_lr.cli.shared.film_settings import FilmSettings
from vdvae_lr.cli.shared.loaded_models import LoadingSettings, load_model
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.datasets.loader import usable_cores
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import entries, exists, is_file, is_folder
from vdvae_lr.files.writing_threads import MOST_THREADS, WritingThreads
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.image_files import read_image, single_picture
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.latent_codes import PosteriorLatents
from vdvae_lr.pictures.picture_grid import check_grid_fits, save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.setting_checks import AtOnce, PathText

_CHANGES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class PictureSettings(LoadingSettings):
    """One model, and where its pictures go."""

    COMMAND: ClassVar[str]
    """Name of the grid if `out` is empty, and the beginning of the single files' names."""
    NAMES: ClassVar[str] = ""
    """Pattern of the single files' names between the number and the ending."""

    source: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run's folder, a folder or file of weights, or a bundled or published name."""
    out: PathText = ""
    """The .png file of the grid; empty: the command's name with .png, or no grid if --files is given."""
    files: PathText = ""
    """Folder for single pictures at their own size, as numbered PNG files; empty: none."""
    overwrite: bool = False
    """Replace a grid or film that exists, and the single files of an earlier call in the folder."""
    seed: int = 0
    """Seed of all noise."""
    batch: AtOnce = 32
    """Number of pictures made at once, for memory and time. It changes pictures by rounding only."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be used (raises InputError)."""
        super().__post_init__()
        if self.out and Path(self.out).suffix.lower() != ".png":
            raise InputError(f"out is {self.out}; the grid is one .png file (single pictures go to --files FOLDER).")

    def chosen(self, *names: str) -> dict[str, Any]:
        """Some settings by name, for a function whose arguments have the same names."""
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class OwnImagesSettings(PictureSettings):
    """A model, where its pictures go, and how a person's own images become latents."""

    latents: PosteriorLatents = "mean"
    """Latents of an image: the posterior's mean in every group, or one sample from the posterior."""
    exact: bool = False
    """Refuse image files that would have to be cut, turned, resized or converted."""


class Studio:
    """What a command makes pictures with: it shows progress, writes single files, and lays out the grid.

    New single files replace those of an earlier set with the same name. The rest of the earlier set goes when the new
    set is whole. Threads write single files while the caller makes the next pictures; `writing` is their `with` block.

    Args:
        settings: settings of the command.
        inputs: image files that the command reads; they are never overwritten.

    Raises:
        InputError: the grid, film or single files of an earlier call exist and --overwrite is not given; one of them is
            an input; the grid has a single file's name; or a place or the film's format cannot be written.
    """

    def __init__(self, settings: PictureSettings, inputs: Sequence[Path]) -> None:
        self._settings, self._inputs = settings, inputs
        self._console = plain_console()
        self.track = ConsoleTracker(self._console)
        self._folder = Path(settings.files) if settings.files else None
        wants_grid = settings.out or not settings.files
        grid = Path(settings.out or f"{settings.COMMAND}.png")
        self._grid = grid if wants_grid else None
        self._film = settings.film_beside(grid) if isinstance(settings, FilmSettings) else None
        self._ours = re.compile(rf"{settings.COMMAND}-\d{{6,}}{settings.NAMES}\.png", re.DOTALL)
        self._check_places()
        found = entries(self._folder) if self._folder is not None else []
        earlier = sorted(path for path in found if self._ours.fullmatch(path.name))
        self._check_nothing_is_lost(earlier)
        self._left = set(earlier)
        self._written = 0
        self.writing = WritingThreads(min(usable_cores(), MOST_THREADS))
        self._parts: list[Pictures] = []

    def _check_places(self) -> None:
        if self._folder is not None:
            if is_file(self._folder):
                raise InputError(f"{self._folder} is a file; name a folder for single pictures with --files.")
            _check_writable(self._folder, self._folder, os.R_OK)
        for path in filter(None, [self._grid, self._film]):
            _check_writable(path, path.parent)
            if is_folder(path):
                raise InputError(f"{path} is a folder; name a file for the grid with --out.")
        if self._grid is None:
            return
        among = self._folder is not None and self._grid.parent.resolve() == self._folder.resolve()
        if among and self._ours.fullmatch(self._grid.name):
            raise InputError(
                f"{self._grid} has the name of a single picture in {self._folder}, and one would replace the other; "
                "name another file with --out."
            )

    def _check_nothing_is_lost(self, earlier: Sequence[Path]) -> None:
        read = {path.resolve() for path in self._inputs}
        results = [*filter(None, [self._grid, self._film])]
        for path in [*results, *earlier]:
            if path.resolve() in read:
                raise InputError(f"{path} is among the images to read, and would be replaced; write somewhere else.")
        if self._settings.overwrite:
            return
        for path in filter(exists, results):
            raise InputError(f"{path} exists; name another file with --out, or replace it with --overwrite.")
        if earlier:
            raise InputError(
                f"{self._folder} holds {counted(len(earlier), 'picture')} of an earlier call ({earlier[0].name} is "
                "one); name another folder with --files, or replace them with --overwrite."
            )

    def begin(self, model: LatentModel, rows: int, columns: int) -> None:
        """Check the grid's size and read the inputs once, and print what is done to the inputs.

        A grid that is too large to open, and an input that cannot be read or that --exact refuses, raise InputError
        before any picture is made.
        """
        if self._grid is not None:
            check_grid_fits(rows, columns, model.image_shape[-1])
        exact = isinstance(self._settings, OwnImagesSettings) and self._settings.exact
        changes = [(path, read_image(path, model, exact).change) for path in self._inputs]
        changed = [f"{path}: {change}" for path, change in changes if change]
        for line in changed[:_CHANGES_SHOWN]:
            self._console.print(line)
        if len(changed) > _CHANGES_SHOWN:
            self._console.print(f"… and likewise {len(changed) - _CHANGES_SHOWN:,} more of {len(self._inputs):,} files")

    def add(self, pictures: Pictures, names: Sequence[str | None] = ()) -> None:
        """Write pictures (B, H, W, C) as FOLDER/COMMAND-NUMBER-NAME.png and keep them for the grid, if it is wanted.

        A picture whose name is None is only for the grid. Without `names` all files have only their numbers. Raises
        InputError if a picture of this or an earlier call cannot be written.
        """
        if self._grid is not None:
            self._parts.append(pictures)
        if self._folder is None:
            return
        for picture, name in zip(pictures, names or [""] * len(pictures), strict=True):
            if name is not None:
                ending = f"-{name}" if name else ""
                path = self._folder / f"{self._settings.COMMAND}-{self._written:06}{ending}.png"
                self.writing.add(partial(save_png, single_picture(picture), path))
                self._written += 1
                self._left.discard(path)

    def finish(
        self, draw: Callable[[list[Pictures]], Image.Image], frame: Callable[[int], Image.Image] | None = None
    ) -> None:
        """Write what is wanted of the grid that `draw` makes of all parts and the film of `frame`'s pictures.

        Then print what was written. Raises InputError if one of them, or a picture of `add`, cannot be written.
        """
        self.writing.wait()
        if self._grid is not None:
            save_png(draw(self._parts), self._grid)
        if self._film is not None and frame is not None and isinstance(self._settings, FilmSettings):
            self._settings.write_film(self._film, frame)
        try:
            for path in self._left:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{self._folder} keeps pictures of an earlier call beside the new ones ({error.strerror or error}); "
                "remove them yourself."
            ) from None
        for path in filter(None, [self._grid, self._film]):
            self._console.print(f"wrote {path}")
        if self._folder is not None:
            self._console.print(f"wrote {counted(self._written, 'single picture')} to {self._folder}")


def make_pictures(
    settings: PictureSettings, work: Callable[[PretrainedModel, Studio], None], inputs: Sequence[Path] = ()
) -> None:
    """Load the model and let `work` make pictures, on one process; arguments and errors are those of `Studio`."""
    studio = Studio(settings, inputs)
    with studio.writing, joined_world(settings.device) as world:

        def make() -> None:
            name = without_secrets(settings.source)
            work(load_model(partial(settings.load, settings.source), name, World(0, 1, world.device)), studio)

        world.on_main(make)


def counted(count: int, thing: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def first_groups_header(count: int, resolutions: Sequence[int]) -> str:
    """A column's header in two lines: how many groups are the first, and the resolution of the last of them."""
    if count == 0:
        return "none"
    words = f"all {count}" if count == len(resolutions) else f"first {count}"
    return f"{words}\nto {resolutions[count - 1]}x{resolutions[count - 1]}"


def _check_writable(path: Path, folder: Path, besides: int = 0) -> None:
    """Refuse `path` if `folder`, which exists or will be made, cannot be written (raises InputError).

    `besides` are `os.access` flags that are needed in addition to those for writing.
    """
    there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    if not there.is_dir():
        raise InputError(f"{path} cannot be written ({there} is no folder); choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK | besides):
        raise InputError(f"{path} cannot be written (no permission for {there}); choose another folder.")
