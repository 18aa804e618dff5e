"""`evaluate`: one model, measured on held-out images by latent group, by resolution and in total.

    vdvae-lr evaluate runs/first

It prints a table, and saves it as evaluation.txt, all numbers as evaluation.json, and pictures of samples, of noise in
the latents and of images nearest collapse, in runs/first/evaluation. docs/evaluation.md says what each number is.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.loaded_models import load_model, load_start_of_run
from vdvae_lr.cli.shared.measured_models import HeldOutImages, check_writable, model_name
from vdvae_lr.cli.shared.progress import plain_console
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.document import (
    COLLAPSE_PICTURE,
    EVALUATION_NAME,
    NOISE_PICTURE,
    SAMPLES_PICTURE,
    Evaluation,
    write_evaluation,
)
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import is_file
from vdvae_lr.files.run_folder import SETTINGS_NAME
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.evaluation_pictures import first_pixels, nearest_collapse_picture, noise_picture, samples_picture
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.report.evaluation_table import evaluation_text
from vdvae_lr.setting_checks import PathText

TABLE_NAME = "evaluation.txt"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(HeldOutImages):
    """Measure what a model's latents do, by latent group, by resolution and in total."""

    model: Annotated[PathText, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run's folder, a folder or file of weights, or a bundled or published name."""
    out: PathText = ""
    """Folder for the results; empty: RUN/evaluation for a run, else evaluation-NAME."""
    name: str = ""
    """What tables call the model; empty: the name of its folder or file."""
    before: PathText = ""
    """The model as it was before fine-tuning; empty: what the run started from, if that can be found; none: leave it
    out."""
    sections: tyro.conf.OmitArgPrefixes[SectionSettings] = dataclasses.field(default_factory=SectionSettings)

    @property
    def folder(self) -> Path:
        """Where the results go (raises InputError if the model's folder may not be looked at)."""
        if self.out:
            return Path(self.out)
        is_run = is_file(Path(self.model) / SETTINGS_NAME)
        return Path(self.model) / "evaluation" if is_run else Path(f"evaluation-{model_name(self.model)}")


def run(settings: EvaluateSettings) -> None:
    """Measure, print and save (raises InputError if the model, the data or the folder cannot be used)."""
    with joined_world(settings.device) as world, float32_convolutions():
        _evaluate(settings, world)


def _evaluate(settings: EvaluateSettings, world: World) -> None:
    name = without_secrets(settings.model)
    model = load_model(partial(settings.load, settings.model), name, world)
    console = plain_console(world.is_main)
    found = settings.find({name: model}, console, world)
    measuring = settings.measuring(found.images, world, console)
    check_writable(settings.folder, world)
    before, before_name, note = _before(settings, model, world)
    findings = measure_sections(Task(model, before, measuring, settings.sections))
    if not world.is_main:
        return
    evaluation = settings.evaluation(
        settings.name or model_name(settings.model),
        settings.model,
        model,
        found,
        findings.and_also(Findings(notes=[note] if note else [])),
        {**dataclasses.asdict(settings.sections), "before": before_name},
    )
    write_evaluation(evaluation, settings.folder / EVALUATION_NAME)
    text = evaluation_text(evaluation)
    write_whole(settings.folder / TABLE_NAME, text.encode())
    console.print(text, soft_wrap=True)
    for left_out in _save_pictures(settings, model, found.images, evaluation):
        console.print(left_out)
    console.print(f"saved in {settings.folder}")


def _before(
    settings: EvaluateSettings, model: PretrainedModel, world: World
) -> tuple[PretrainedModel | None, str, str]:
    """The model before fine-tuning, its name, and, if it cannot be used, a sentence that says why."""
    if settings.before == "none":
        return None, "", ""
    if not settings.before:
        return load_start_of_run(model, settings.weights, world)
    name, places = without_secrets(settings.before), dataclasses.replace(settings.weights, revision="")
    load = partial(PretrainedModel.from_pretrained, settings.before, config=model.config, sources=places)
    return load_model(load, name, world), name, ""


def _save_pictures(
    settings: EvaluateSettings, model: PretrainedModel, images: ImageSource, evaluation: Evaluation
) -> list[str]:
    """Returns a sentence for each picture that cannot be made of this model."""
    folder, sections = settings.folder, settings.sections
    for name in (COLLAPSE_PICTURE, SAMPLES_PICTURE, NOISE_PICTURE.format(unit="*", variance="*"), "noise_response.png"):
        for path in folder.glob(name):
            path.unlink()  # of an earlier evaluation, or version
    if not settings.images:
        return []
    if evaluation.inputs is not None:
        picture = nearest_collapse_picture(model, images, evaluation.inputs, seed=settings.seed, batch=settings.batch)
        save_png(picture, folder / COLLAPSE_PICTURE)
    pixels = first_pixels(images, min(settings.images, evaluation.examples))
    save_png(samples_picture(model, settings.seed), folder / SAMPLES_PICTURE)
    left_out = []
    for unit, variance in product(sections.noise_units, sections.noise_variances if sections.noise_images else ()):
        name = NOISE_PICTURE.format(unit=unit, variance=f"{variance:g}")
        try:
            if variance:
                picture = noise_picture(
                    {"": model}, pixels, variances=(0.0, variance), units=(unit,), seed=settings.seed, differences=True
                )
                save_png(picture, folder / name)
        except UnmeasurableError as error:
            left_out.append(f"No {name}: {error}")
    return left_out
