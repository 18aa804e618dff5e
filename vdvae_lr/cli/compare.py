"""`compare`: several models of one architecture, measured on the same held-out images with the same noise.

    vdvae-lr compare before=fashion LR=runs/lr no-LR=runs/plain --split test --out comparison

prints a table and leaves it as comparison.json, with reconstructions.png, samples.png and noise_response.png, in --out.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from vdvae_lr.cli.config import model_settings
from vdvae_lr.cli.progress import ConsoleTracker, plain_console
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World, joined_world
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.comparison import MeasuringPlan, check_comparable, measure_model
from vdvae_lr.evaluation.comparison_pictures import comparison_pictures
from vdvae_lr.evaluation.comparison_report import Comparison, comparison_json, comparison_table
from vdvae_lr.evaluation.measuring import Tracker
from vdvae_lr.evaluation.picture_grid import save_png
from vdvae_lr.evaluation.quantities import Measurement
from vdvae_lr.hub.sources import WeightSettings, checksum
from vdvae_lr.hub.vdvae import VDVAE
from vdvae_lr.whole_file import write_whole


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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

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
    models = _load(settings, sources, world)
    check_comparable(models)
    data = _data_settings(settings, models)
    config = next(iter(models.values())).config
    source: ImageSource = getattr(open_splits(data, config.image_size, config.image_channels), settings.split)
    examples = min(settings.examples or len(source), len(source))
    console = plain_console(world.is_main)
    measured = _measure(models, source, settings, examples, world, ConsoleTracker(console))
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


def _load(settings: CompareSettings, sources: dict[str, str], world: World) -> dict[str, VDVAE]:
    config = model_settings(settings.hps)

    def load() -> dict[str, VDVAE]:
        return {
            name: VDVAE.from_pretrained(source, config=config, sources=settings.weights)
            for name, source in sources.items()
        }

    models = world.patiently(load, "loading weights")
    for name, model in models.items():
        if not world.agree(checksum(model.state_dict())):
            raise InputError(f"the processes found different weights for '{name}'; give one --revision, or one folder.")
    return models


def _data_settings(settings: CompareSettings, models: dict[str, VDVAE]) -> DataSettings:
    dataset = settings.dataset or next(iter(models.values())).dataset
    if not dataset:
        raise InputError(
            f"model '{next(iter(models))}' does not say what data it was trained on; name a data set with --dataset."
        )
    return DataSettings(dataset=dataset, data_root=settings.data_root, num_workers=settings.num_workers)
