"""What the commands that make pictures of one model share: its settings, the images to read, and where pictures go.

A command writes a grid (`--out FILE.png`), single files (`--files FOLDER`), or both. It overwrites nothing without
`--overwrite`.

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

from vdvae_lr.cli.shared.loaded_models import LoadingSettings, load_model
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import entries, exists, is_file, is_folder
from vdvae_lr.hub.pretrained import PretrainedModel
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
    """Replace a grid that exists, and the single files of an earlier call in the folder."""
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


class PictureFiles:
    """The files that a command writes.

    While an earlier set of single files is replaced, new files take the place of old ones with the same name. The other
    old files go when the new set is whole.

    Args:
        settings: settings of the command.
        inputs: image files that the command reads; they are never overwritten.

    Raises:
        InputError: the grid or single files of an earlier call exist and --overwrite is not given; one of them is an
            input; the grid has a single file's name; or a place cannot be written.
    """

    def __init__(self, settings: PictureSettings, inputs: Sequence[Path]) -> None:
        self._command = settings.COMMAND
        self.folder = Path(settings.files) if settings.files else None
        wants_grid = settings.out or not settings.files
        self.grid = Path(settings.out or f"{settings.COMMAND}.png") if wants_grid else None
        self._ours = re.compile(rf"{settings.COMMAND}-\d{{6,}}{settings.NAMES}\.png", re.DOTALL)
        self._check_places()
        found = entries(self.folder) if self.folder is not None else []
        earlier = sorted(path for path in found if self._ours.fullmatch(path.name))
        self._check_nothing_is_lost(earlier, inputs, settings.overwrite)
        self._left = set(earlier)
        self._written = 0

    def _check_places(self) -> None:
        if self.folder is not None:
            if is_file(self.folder):
                raise InputError(f"{self.folder} is a file; name a folder for single pictures with --files.")
            _check_writable(self.folder, self.folder, os.R_OK)
        if self.grid is None:
            return
        _check_writable(self.grid, self.grid.parent)
        if is_folder(self.grid):
            raise InputError(f"{self.grid} is a folder; name a file for the grid with --out.")
        among = self.folder is not None and self.grid.parent.resolve() == self.folder.resolve()
        if among and self._ours.fullmatch(self.grid.name):
            raise InputError(
                f"{self.grid} has the name of a single picture in {self.folder}, and one would replace the other; "
                "name another file with --out."
            )

    def _check_nothing_is_lost(self, earlier: Sequence[Path], inputs: Sequence[Path], overwrite: bool) -> None:
        read = {path.resolve() for path in inputs}
        for path in [*([self.grid] if self.grid else []), *earlier]:
            if path.resolve() in read:
                raise InputError(f"{path} is among the images to read, and would be replaced; write somewhere else.")
        if self.grid is not None and exists(self.grid) and not overwrite:
            raise InputError(f"{self.grid} exists; name another file with --out, or replace it with --overwrite.")
        if earlier and not overwrite:
            raise InputError(
                f"{self.folder} holds {counted(len(earlier), 'picture')} of an earlier call ({earlier[0].name} is "
                "one); name another folder with --files, or replace them with --overwrite."
            )

    def write_single(self, picture: Pictures, name: str) -> None:
        """Write a picture (H, W, C) as FOLDER/COMMAND-NUMBER-NAME.png (raises InputError if it cannot)."""
        assert self.folder is not None
        path = self.folder / f"{self._command}-{self._written:06}{f'-{name}' if name else ''}.png"
        save_png(single_picture(picture), path)
        self._written += 1
        self._left.discard(path)

    def finish(self) -> list[str]:
        """Remove the rest of an earlier set; returns sentences on what was written (raises InputError if it cannot)."""
        try:
            for path in self._left:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder} keeps pictures of an earlier call beside the new ones ({error.strerror or error}); "
                "remove them yourself."
            ) from None
        grid = [f"wrote {self.grid}"] if self.grid is not None else []
        singles = f"wrote {counted(self._written, 'single picture')} to {self.folder}"
        return [*grid, singles] if self.folder is not None else grid


class Studio:
    """What a command makes its pictures with.

    Attributes:
        model: the model, on its device.
        track: shows the progress of a loop.
    """

    def __init__(self, model: PretrainedModel, files: PictureFiles) -> None:
        self.model = model
        self._files = files
        self._console = plain_console()
        self.track = ConsoleTracker(self._console)
        self._rows: list[Pictures] = []

    def begin(self, rows: int, columns: int, inputs: Sequence[Path] = (), exact: bool = False) -> None:
        """Check what can be checked before any picture is made, and print what has to be done to the inputs.

        Args:
            rows: rows of the grid.
            columns: columns of the grid.
            inputs: image files that the command reads.
            exact: refuse inputs that would have to be changed.

        Raises:
            InputError: the grid is too large to open, or an input cannot be read or is refused.
        """
        if self._files.grid is not None:
            check_grid_fits(rows, columns, self.model.image_shape[-1])
        changes = [(path, read_image(path, self.model, exact).change) for path in inputs]
        changed = [f"{path}: {change}" for path, change in changes if change]
        for line in changed[:_CHANGES_SHOWN]:
            self._console.print(line)
        if len(changed) > _CHANGES_SHOWN:
            self._console.print(f"… and so {len(changed) - _CHANGES_SHOWN:,} more of {len(inputs):,} files")

    def add(self, pictures: Pictures, names: Sequence[str | None] = ()) -> None:
        """Write pictures (B, H, W, C) as single files and keep them for the grid, as far as each is wanted.

        Args:
            pictures: a part of the grid.
            names: the single files' names behind their numbers; None: the picture is only for the grid. Without names
                all have only their numbers.
        """
        if self._files.folder is not None:
            for picture, name in zip(pictures, names or [""] * len(pictures), strict=True):
                if name is not None:
                    self._files.write_single(picture, name)
        if self._files.grid is not None:
            self._rows.append(pictures)

    def finish(self, draw: Callable[[list[Pictures]], Image.Image]) -> None:
        """Write the grid that `draw` makes of all parts, if it is wanted, and print what was written."""
        if self._files.grid is not None:
            save_png(draw(self._rows), self._files.grid)
        for line in self._files.finish():
            self._console.print(line)


def make_pictures(settings: PictureSettings, work: Callable[[Studio], None], inputs: Sequence[Path] = ()) -> None:
    """Load the model and let `work` make pictures, on one process.

    Args:
        settings: settings of the command.
        work: makes the pictures.
        inputs: image files that `work` reads.

    Raises:
        InputError: the weights or a place cannot be used, or `work` refuses something.
    """
    files = PictureFiles(settings, inputs)
    with joined_world(settings.device) as world:

        def make() -> None:
            name = without_secrets(settings.source)
            model = load_model(partial(settings.load, settings.source), name, World(0, 1, world.device))
            work(Studio(model, files))

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
    """Refuse a place that cannot be written, before any work is done for it (raises InputError).

    Args:
        path: what will be written; messages name it.
        folder: its folder, which exists or will be made.
        besides: `os.access` flags that are needed in addition to those for writing.
    """
    there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    if not there.is_dir():
        raise InputError(f"{path} cannot be written ({there} is no folder); choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK | besides):
        raise InputError(f"{path} cannot be written (no permission for {there}); choose another folder.")
