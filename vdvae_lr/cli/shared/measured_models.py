"""What `evaluate`, `compare` and `noise` share: held-out images, models, and one evaluation of each model.

Shapes: B images, C channels (1 or 3), H W resolution.
"""

import dataclasses
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vdvae_lr import __version__
from vdvae_lr.cli.shared.loaded_models import LoadingSettings, load_model, run_settings
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.datasets.catalogue import DataSettings, open_splits_together
from vdvae_lr.datasets.hub_listing import HubSettings
from vdvae_lr.datasets.inventory import Inventory, inventory_lines, take_inventory
from vdvae_lr.datasets.loader import check_readers
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import Evaluation, write_evaluations
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.task import Section, SectionSettings, Task
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import expanded
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.evaluation_pictures import first_pixels
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.setting_checks import AtOnce, Between, CountOrNone, PathText


@dataclass(frozen=True)
class FoundImages:
    """The images of a split, as the models take them, and what else the data set holds."""

    dataset: str
    images: ImageSource
    inventory: Inventory


@dataclass(frozen=True, kw_only=True)
class HeldOutImages(LoadingSettings, HubSettings):
    """Images to measure models on, and how they are measured."""

    split: Literal["train", "valid", "test"] = "test"
    """Split to measure on."""
    examples: CountOrNone = 0
    """Measure on the first so many images only; 0: all of them."""
    images: Annotated[int, Between(0, 65_536)] = 8
    """Number of images in a picture's row; 0: make no pictures."""
    seed: int = 0
    """Seed of all noise, which is the same for every model."""
    batch: AtOnce = 32
    """Number of images at once on one process; changes no number."""
    dataset: str = ""
    """Data set to measure on; empty: the one that the first model was trained on."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty: where a run among the models found them, or data/NAME."""
    bad_images: Literal["", "stop", "skip"] = ""
    """What to do about a file that is no readable image: stop and name it, or skip it and take another image; empty: as
    a run among the models did, else stop."""
    num_workers: CountOrNone = 0
    """Number of processes that read images ahead."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute, in float32."""

    def find(self, models: Mapping[str, PretrainedModel], console: Console, world: World) -> FoundImages:
        """Find the data for models of one architecture, by their names in messages, and print what was found.

        Raises:
            InputError: neither the settings nor the first model name a data set, or it cannot be read.
        """
        data = self._data(models)
        config = next(iter(models.values())).config
        splits = open_splits_together(data, config.image_size, config.image_channels, world)
        images: ImageSource = getattr(splits, self.split)
        for line in [*inventory_lines(splits), *check_readers(self.num_workers, images)]:
            console.print(line, soft_wrap=True)
        return FoundImages(data.dataset, images, take_inventory(splits))

    def _data(self, models: Mapping[str, PretrainedModel]) -> DataSettings:
        """The data set of the settings or of the first model, in the place where a run among the models found it."""
        name, first = next(iter(models.items()))
        chosen = self.dataset or first.dataset
        if not chosen:
            raise InputError(
                f"model '{name}' does not say what data it was trained on; name a data set with --dataset."
            )
        of_runs = [] if self.data_root else [run_settings(model) for model in models.values()]
        own = next((settings for settings in of_runs if settings.get("dataset") == chosen), {})
        root = self.data_root or str(own.get("data_root", ""))
        on_hub = {field.name: getattr(self, field.name) or own.get(field.name, "") for field in fields(HubSettings)}
        bad_images = self.bad_images or own.get("bad_images", "stop")
        return DataSettings(chosen, root, bad_images, self.num_workers, **on_hub)

    def measuring(self, images: ImageSource, world: World, console: Console, name: str = "") -> Measuring:
        """How one model is measured on `images` (raises InputError if there are none); progress shows its name."""
        track = ConsoleTracker(console)
        return Measuring(images, self.count(images), self.batch, self.seed, world, track, name, self.num_workers)

    def count(self, images: ImageSource) -> int:
        """How many of a split's images are measured."""
        return min(self.examples or len(images), len(images))

    def evaluation(
        self,
        name: str,
        source: str,
        model: PretrainedModel,
        found: FoundImages,
        findings: Findings,
        measured_with: Mapping[str, object],
    ) -> Evaluation:
        """What was found on one model, with everything that a reader must know about it."""
        device, record = model.device, model.provenance.record
        versions = {
            "vdvae_lr": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        }
        return Evaluation(
            name=name,
            source=without_secrets(source),
            model=dataclasses.asdict(model.config),
            dimensions=model.dimensions,
            resolutions=model.resolutions,
            channels=tuple(shape[0] for shape in model.latent_shapes),
            dataset=found.dataset,
            split=self.split,
            examples=self.count(found.images),
            seed=self.seed,
            versions=versions,
            quantities=tuple(findings.quantities),
            inputs=findings.inputs,
            details=findings.details,
            notes=(*findings.notes, *findings.without_value()),
            settings=measured_with,
            iteration=record.iteration if record is not None else None,
            inventory=found.inventory,
        )


@dataclass(frozen=True, kw_only=True)
class ModelsOnImages(HeldOutImages):
    """Several models, the held-out images that they are measured on, and where the results go."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=RUN_OR_WEIGHTS")]
    """Models, each as NAME=SOURCE: a run's folder, a folder or file of weights, or a bundled or published name."""
    out: Path

    def section_settings(self, images: int, resolutions: tuple[int, ...]) -> SectionSettings:
        """What is measured, on a split of so many images and groups at these resolutions (raises InputError)."""
        raise NotImplementedError


def measure_models(
    settings: ModelsOnImages,
    measure: Section,
    show: Callable[[Mapping[str, Evaluation]], Table],
    draw: Callable[[Mapping[str, PretrainedModel], Tensor], Mapping[str, Image.Image]],
    file_name: str,
) -> None:
    """Measure each model on the same images with the same noise, print a table, and save numbers and pictures.

    Models, data or a folder that cannot be used raise InputError before anything is measured.

    Args:
        settings: settings of the command.
        measure: one section of an evaluation, or all of them (`measure_sections`).
        show: makes the table from the evaluations by model.
        draw: makes pictures by file name from the models and the first B images, (B, C, H, W) uint8.
        file_name: name of the JSON file.
    """
    sources = named_sources(settings.models)
    with joined_world(settings.device) as world, float32_convolutions():
        models = {name: load_model(partial(settings.load, source), name, world) for name, source in sources.items()}
        check_comparable(models)
        console = plain_console(world.is_main)
        found = settings.find(models, console, world)
        sections = settings.section_settings(len(found.images), next(iter(models.values())).resolutions)
        check_writable(settings.out, world)
        evaluations = {}
        for name, model in models.items():
            findings = measure(Task(model, None, settings.measuring(found.images, world, console, name), sections))
            measured_with = dataclasses.asdict(sections)
            evaluations[name] = settings.evaluation(name, sources[name], model, found, findings, measured_with)
        if not world.is_main:
            return
        console.print(show(evaluations))
        noted: dict[str, list[str]] = {}
        for name, evaluation in evaluations.items():
            for note in evaluation.notes:
                noted.setdefault(note, []).append(name)
        for note, names in noted.items():
            console.print(f"{', '.join(names)}: {note}", soft_wrap=True)
        write_evaluations(evaluations, settings.out / file_name)
        pictures = draw(models, first_pixels(found.images, settings.images)) if settings.images else {}
        for picture_name, picture in pictures.items():
            save_png(picture, settings.out / picture_name)
        console.print(f"saved in {settings.out}")


def named_sources(words: Iterable[str]) -> dict[str, str]:
    """Words of the form `NAME=SOURCE` as a mapping, in order (raises InputError for others, doubled names, or none)."""
    sources: dict[str, str] = {}
    for word in words:
        name, _, source = word.partition("=")
        if not name or not source:
            raise InputError(f"'{word}' names no model; write NAME=RUN_OR_WEIGHTS, such as before=fashion.")
        if name in sources:
            raise InputError(f"two models are called '{name}'; give each its own name.")
        sources[name] = expanded(source)
    if not sources:
        raise InputError("there is no model to measure; give at least one as NAME=RUN_OR_WEIGHTS.")
    return sources


def model_sources(words: Iterable[str]) -> dict[str, str]:
    """As `named_sources`, but NAME= may be left out. A path or an address may have an equals sign behind a slash."""

    def with_name(word: str) -> str:
        name, equals, _ = word.partition("=")
        return word if equals and "/" not in name else f"{model_name(word)}={word}"

    return named_sources(map(with_name, words))


def model_name(source: str) -> str:
    """What to call the model that `source` names: the last part of its folder, file, repository or address."""
    path = Path(without_secrets(source))
    known = (".th", ".pt", ".safetensors")
    return (path.stem if path.suffix in known else path.name) or path.resolve().name or "model"


def check_comparable(models: Mapping[str, PretrainedModel]) -> None:
    """Refuse models whose settings differ, in which the same noise would mean different things (raises InputError)."""
    (first_name, first), *others = models.items()
    for name, model in others:
        if type(model.config) is not type(first.config):
            raise InputError(f"models '{first_name}' and '{name}' are of different classes; compare models of one.")
        for field in dataclasses.fields(first.config):
            ours, theirs = getattr(first.config, field.name), getattr(model.config, field.name)
            if ours != theirs:
                raise InputError(
                    f"models '{first_name}' and '{name}' differ in {field.name} ({ours!r} and {theirs!r}); "
                    "compare models of one architecture."
                )


def check_writable(folder: Path, world: World) -> None:
    """Make the folder for results, and check before hours of work that it can be written (raises InputError).

    Every process must call this. The main process checks, and all of them end if it refuses.
    """

    def check() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(
                f"folder {folder} cannot be written ({error.strerror or error}); choose another one with --out."
            ) from None

    world.on_main(check)
