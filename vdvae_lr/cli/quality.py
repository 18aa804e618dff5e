"""`quality`: FID, KID, precision and recall of a model's samples and reconstructions, against a data set's images.

    vdvae-lr quality before=fashion LR=runs/lr --out quality

It prints a table, and saves its numbers as quality.json in --out. The features of the images are kept in the Hugging
Face cache, so that the next model does not pay for them. docs/quality.md says what each number is.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vdvae_lr.cli.shared.loaded_models import load_model
from vdvae_lr.cli.shared.measured_models import HeldOutImages, check_writable, model_sources
from vdvae_lr.cli.shared.progress import plain_console
from vdvae_lr.cli.shared.quality_meter import quality_meter
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import QUALITY_NAME, Evaluation, write_evaluations
from vdvae_lr.evaluation.quality.scores import NEIGHBOURS, SUBSETS, check_installed
from vdvae_lr.files.paths import is_file
from vdvae_lr.files.run_folder import SETTINGS_NAME
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.picture_quality import PictureSet, WantedSets
from vdvae_lr.processes.world import joined_world
from vdvae_lr.report.comparison_table import quality_table
from vdvae_lr.setting_checks import Count, CountOrNone, PathText


@dataclass(frozen=True, kw_only=True)
class QualitySettings(HeldOutImages):
    """Measure FID, KID, precision and recall of samples and reconstructions, against a data set's images."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN_OR_WEIGHTS")]
    """Models, each as SOURCE or NAME=SOURCE: a run's folder, a folder or file of weights, or a bundled or published
    name."""
    out: PathText = ""
    """Folder for quality.json; empty: RUN/evaluation for one run, where `report` finds it, else quality."""
    split: Literal["train", "valid", "test"] = "train"
    """Split with whose images the pictures are compared. Published numbers of FID are against the training images."""
    examples: CountOrNone = 50_000
    """Compare with the first so many images of the split only; 0: all of them."""
    samples: Count = 10_000
    """Number of samples at each temperature, and of reconstructions, of which there are no more than images."""
    sets: tuple[PictureSet, ...] = ("samples", "reconstructions")
    """What is measured."""
    temperature: tuple[str, ...] = ("1.0",)
    """Factor of the prior's scale, as for `sample`: 0.9; a number for each group, with commas; or
    RESOLUTION:TEMPERATURE pairs. Several, with spaces, are measured one after another."""
    image: Literal["auto", "sample", "mean"] = "auto"
    """What a sample shows. sample: drawn from p(x|z), as in the published code; mean: the likelihood's mean; auto: what
    `vdvae-lr sample` shows by itself. Reconstructions are means."""
    extractor: PathText = ""
    """File of the Inception network's weights; empty: the published one, downloaded at first use."""
    images: tyro.conf.Suppress[int] = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be measured (raises InputError)."""
        super().__post_init__()
        for name, values in (("sets", self.sets), ("temperature", self.temperature)):
            if not values:
                raise InputError(f"{name} has no value; give at least one, or leave --{name} out.")
            if len(set(values)) < len(values):
                raise InputError(f"{name} are {', '.join(values)}; name each once.")

    @property
    def folder(self) -> Path:
        """Where the results go (raises InputError if a model's folder may not be looked at)."""
        if self.out:
            return Path(self.out)
        first, *others = self.sources.values()
        return Path(first) / "evaluation" if not others and is_file(Path(first) / SETTINGS_NAME) else Path("quality")

    @property
    def sources(self) -> dict[str, str]:
        """Where the models are, by name (raises InputError as `model_sources`)."""
        return model_sources(self.models)

    @property
    def wanted(self) -> WantedSets:
        """The sets of pictures."""
        return WantedSets(self.sets, self.samples, self.temperature, None if self.image == "auto" else self.image)


def run(settings: QualitySettings) -> None:
    """Measure, save and print (raises InputError if models, data, packages, weights or the folder cannot be used)."""
    check_installed()
    sources = settings.sources
    with joined_world(settings.device) as world, float32_convolutions():
        models = {name: load_model(partial(settings.load, source), name, world) for name, source in sources.items()}
        _check_models(models, settings)
        console = plain_console(world.is_main)
        found = settings.find(models, console, world)
        settings.wanted.check(settings.count(found.images))
        check_writable(settings.folder, world)
        measuring = settings.measuring(found.images, world, console)
        meter = quality_meter(settings.extractor, settings.wanted, measuring, console)
        evaluations: dict[str, Evaluation] = {}
        for name, model in models.items():
            its = dataclasses.replace(measuring, name=name if len(models) > 1 else "")
            findings, measured_with = meter.measure(model, its), _measured_with(settings)
            evaluations[name] = settings.evaluation(name, sources[name], model, found, findings, measured_with)
            if world.is_main:  # so that a failure of the next model loses nothing
                write_evaluations(evaluations, settings.folder / QUALITY_NAME)
        if not world.is_main:
            return
        console.print(quality_table(evaluations))
        for note in meter.notes:
            console.print(note, soft_wrap=True)
        console.print(f"saved in {settings.folder}")


def _measured_with(settings: QualitySettings) -> dict[str, Any]:
    chosen = {name: getattr(settings, name) for name in ("sets", "samples", "temperature", "image")}
    return chosen | {"neighbours": NEIGHBOURS, "kid_subsets": SUBSETS}


def _check_models(models: Mapping[str, PretrainedModel], settings: QualitySettings) -> None:
    """Refuse models of different images, and temperatures that one of them cannot have (raises InputError)."""
    (first_name, first), *others = models.items()
    for name, model in others:
        if model.image_shape != first.image_shape:
            raise InputError(
                f"models '{first_name}' and '{name}' make images of different sizes or channels; measure them apart."
            )
    for model in models.values():
        for words in settings.temperature:
            group_temperatures(words, model.resolutions)
