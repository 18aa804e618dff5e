"""`compare`: several models of one architecture, measured on the same held-out images with the same noise.

    vdvae-lr compare before=fashion LR=runs/lr no-LR=runs/plain --split test --out comparison

prints a table and leaves it as comparison.json, with reconstructions.png, samples.png and noise_response.png, in --out.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
import tyro
from rich.console import Console
from rich.progress import track

from vdvae_lr.cli.config import apply_values, read_presets
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World, joined_world
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.comparison import Measurement, MeasuringPlan, Tracker, check_comparable, measure_model
from vdvae_lr.evaluation.comparison_pictures import comparison_pictures
from vdvae_lr.evaluation.comparison_report import Comparison, comparison_json, comparison_table
from vdvae_lr.evaluation.picture_grid import save_png
from vdvae_lr.hub.repository import Pretrained, load_pretrained
from vdvae_lr.model.vae import VDVAE
from vdvae_lr.training.settings import Settings
from vdvae_lr.whole_file import write_whole

T = TypeVar("T")

_PLAIN_WIDTH = 160  # a file or a pipe has no width; wide enough that no cell is cut


@dataclass(frozen=True)
class CompareSettings:
    """Compare models on held-out images: bound, Latent Reconstruction, information, active latents, noise response."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=RUN_OR_WEIGHTS")]
    """Models, each as NAME=SOURCE: a run's folder, a folder or file of weights, or a bundled or published name."""
    split: Literal["train", "valid", "test"] = "test"
    """Images to measure on."""
    examples: int = 0
    """Measure on the first so many images only; 0: all of them."""
    images: int = 8
    """Images in a picture's row; 0: no pictures."""
    seed: int = 0
    """Of all noise: the same for every model."""
    out: Path = Path("comparison")
    """Folder for comparison.json and the pictures."""
    batch: int = 32
    """Images at once on one process; changes no number."""
    dataset: str = ""
    """Data set to measure on; empty: the one the first model was trained on."""
    data_root: str = ""
    """Folder that holds the data set's files; empty: data/NAME."""
    num_workers: int = 0
    """Processes that read images ahead."""
    content_dimensions: int = 0
    """Also state the bound on this many dimensions an image: 784 for 28x28 images padded to 32x32; 0: do not."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (published .th files)."""
    weights_dir: str = ""
    """Folder of published weight files (empty: ./weights)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        for name, least in (("examples", 0), ("images", 0), ("content_dimensions", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {least} or more.")


def run(settings: CompareSettings) -> None:
    """Measure, print and save; raises InputError for models, data or a folder that cannot be used."""
    sources = named_sources(settings.models)
    with joined_world(settings.device) as world:
        _compare(settings, sources, world)


def named_sources(words: Iterable[str]) -> dict[str, str]:
    """`NAME=SOURCE` words as a mapping, in order.

    Raises:
        InputError: no word, one without NAME= or SOURCE, or a name given twice.
    """
    sources: dict[str, str] = {}
    for word in words:
        name, _, source = word.partition("=")
        if not name or not source:
            raise InputError(f"'{word}' names no model; write NAME=RUN_OR_WEIGHTS, such as before=fashion.")
        if name in sources:
            raise InputError(f"two models are called '{name}'; give each its own name.")
        sources[name] = source
    if not sources:
        raise InputError("there is no model to measure; give at least one as NAME=RUN_OR_WEIGHTS.")
    return sources


def _compare(settings: CompareSettings, sources: dict[str, str], world: World) -> None:
    loaded = _load(settings, sources)
    models = {name: pretrained.model for name, pretrained in loaded.items()}
    check_comparable(models)
    data = _data_settings(settings, loaded)
    config = next(iter(models.values())).config
    source: ImageSource = getattr(open_splits(data, config.image_size, config.image_channels), settings.split)
    examples = min(settings.examples or len(source), len(source))
    console = _console()
    measured = _measure(models, source, settings, examples, world, _Tracker(console, world.is_main))
    if world.is_main:
        comparison = Comparison(
            measured,
            sources,
            data.dataset,
            settings.split,
            examples,
            settings.seed,
            config.dimensions,
            settings.content_dimensions,
        )
        console.print(comparison_table(comparison))
        write_whole(settings.out / "comparison.json", comparison_json(comparison).encode())
        _save_pictures(models, source, settings)
        console.print(f"saved in {settings.out}")


def _measure(
    models: dict[str, VDVAE],
    source: ImageSource,
    settings: CompareSettings,
    examples: int,
    world: World,
    tracker: Tracker,
) -> dict[str, dict[str, Measurement]]:
    plan = MeasuringPlan(examples, settings.batch, settings.seed, settings.num_workers)
    for model in models.values():
        model.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {name: measure_model(model, source, plan, world, tracker, name) for name, model in models.items()}


def _save_pictures(models: dict[str, VDVAE], source: ImageSource, settings: CompareSettings) -> None:
    shown = min(settings.images, len(source))
    if shown == 0:
        return
    pixels = torch.from_numpy(source.read(range(shown))).permute(0, 3, 1, 2)
    for name, picture in comparison_pictures(models, pixels, settings.seed).items():
        save_png(picture, settings.out / name)


def _load(settings: CompareSettings, sources: dict[str, str]) -> dict[str, Pretrained]:
    config = None
    if settings.hps:
        config = apply_values(Settings(), read_presets(settings.hps), f"--hps {settings.hps}").model
    return {name: load_pretrained(source, config, settings.weights_dir) for name, source in sources.items()}


def _data_settings(settings: CompareSettings, loaded: dict[str, Pretrained]) -> DataSettings:
    dataset = settings.dataset or next(iter(loaded.values())).dataset
    if not dataset:
        raise InputError(
            f"model '{next(iter(loaded))}' does not say what data it was trained on; name a data set with --dataset."
        )
    return DataSettings(dataset=dataset, data_root=settings.data_root, num_workers=settings.num_workers)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, markup=False, highlight=False)


class _Tracker:
    """A progress bar in a terminal, one line a loop elsewhere, nothing on other processes than the main one."""

    def __init__(self, console: Console, speaks: bool) -> None:
        self._console = console
        self._speaks = speaks

    def __call__(self, items: Iterable[T], total: int, what: str) -> Iterable[T]:
        if not self._speaks:
            return items
        if self._console.is_terminal:
            return track(items, what, total=total, console=self._console, transient=True)
        self._console.print(what)
        return items
