"""`evaluate`: one model, measured on held-out images by latent group, by resolution and in total.

    vdvae-lr evaluate runs/first

prints a table and leaves it as evaluation.txt, all numbers as evaluation.json, and nearest_collapse.png and
noise_response.png, in runs/first/evaluation. docs/evaluation.md says what each number is.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.cli.shared.held_out_images import HeldOutImages, first_pixels
from vdvae_lr.cli.shared.loaded_models import load_model, load_named_before, load_start_of_run
from vdvae_lr.cli.shared.measured_models import evaluation_of
from vdvae_lr.cli.shared.output_folder import check_writable
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.cli.shared.source_names import is_run, model_name
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.document import (
    COLLAPSE_PICTURE,
    EVALUATION_NAME,
    NOISE_PICTURE,
    Evaluation,
    write_evaluation,
)
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.collapse_pictures import nearest_collapse_picture
from vdvae_lr.pictures.noise_pictures import noise_picture
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
    """What tables call the model; empty: as its folder or file is called."""
    before: PathText = ""
    """The model as it was before fine-tuning; empty: what the run started from, where that can be found; none:
    leave it out."""
    sections: tyro.conf.OmitArgPrefixes[SectionSettings] = dataclasses.field(default_factory=SectionSettings)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        if self.out:
            return Path(self.out)
        return Path(self.model) / "evaluation" if is_run(self.model) else Path(f"evaluation-{model_name(self.model)}")


def run(settings: EvaluateSettings) -> None:
    """Measure, print and save; raises InputError for a model, data or a folder that cannot be used."""
    with joined_world(settings.device) as world, float32_convolutions():
        _evaluate(settings, world)


def _evaluate(settings: EvaluateSettings, world: World) -> None:
    model = load_model(settings.model, model_settings(settings.hps), settings.weights, world)
    console = plain_console(world.is_main)
    found = settings.find({without_secrets(settings.model): model}, console)
    measuring = settings.measuring(found.source, world, ConsoleTracker(console))
    check_writable(settings.folder, world)
    before, before_name, note = _before(settings, model, world)
    findings = measure_sections(Task(model, before, measuring, settings.sections))
    if not world.is_main:
        return
    evaluation = evaluation_of(
        settings,
        settings.name or model_name(settings.model),
        settings.model,
        model,
        found,
        measuring.count(),
        findings.and_also(Findings(notes=[note] if note else [])),
        {**dataclasses.asdict(settings.sections), "before": before_name},
    )
    write_evaluation(evaluation, settings.folder / EVALUATION_NAME)
    text = evaluation_text(evaluation)
    write_whole(settings.folder / TABLE_NAME, text.encode())
    console.print(text, soft_wrap=True)
    for left_out in _save_pictures(settings, model, found.source, evaluation):
        console.print(left_out)
    console.print(f"saved in {settings.folder}")


def _before(
    settings: EvaluateSettings, model: PretrainedModel, world: World
) -> tuple[PretrainedModel | None, str, str]:
    """The model before fine-tuning, its name, and a sentence on why there is none."""
    if settings.before == "none":
        return None, "", ""
    if not settings.before:
        return load_start_of_run(model, settings.weights, world)
    before = load_named_before(settings.before, model, settings.weights, world)
    return before, without_secrets(settings.before), ""


def _save_pictures(
    settings: EvaluateSettings, model: PretrainedModel, source: ImageSource, evaluation: Evaluation
) -> list[str]:
    """Returns a sentence for each picture that the model does not allow."""
    folder = settings.folder
    for name in (COLLAPSE_PICTURE, NOISE_PICTURE):
        (folder / name).unlink(missing_ok=True)  # of an evaluation that was here before
    if settings.images == 0:
        return []
    if evaluation.inputs is not None:
        picture = nearest_collapse_picture(model, source, evaluation.inputs, seed=settings.seed, batch=settings.batch)
        save_png(picture, folder / COLLAPSE_PICTURE)
    if not settings.sections.noise_images:
        return []
    pixels = first_pixels(source, min(settings.images, evaluation.examples))
    sections = settings.sections
    try:
        picture = noise_picture(
            {"": model}, pixels, variances=sections.noise_variances, units=sections.noise_units, seed=settings.seed
        )
    except UnmeasurableError as error:
        return [f"No {NOISE_PICTURE}: {error}"]
    save_png(picture, folder / NOISE_PICTURE)
    return []
