"""`evaluate`: one model, measured on held-out images by latent group, by resolution and in total.

    vdvae-lr evaluate runs/first

prints a table and leaves it as evaluation.txt, all numbers as evaluation.json, and nearest_collapse.png and
noise_response.png, in runs/first/evaluation. docs/evaluation.md says what each number is.
"""

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from vdvae_lr import __version__
from vdvae_lr.cli.config import model_settings
from vdvae_lr.cli.loaded_models import load_model, load_named_before, load_start_of_run
from vdvae_lr.cli.measured_data import data_settings, open_split
from vdvae_lr.cli.output_folder import check_writable
from vdvae_lr.cli.progress import ConsoleTracker, plain_console
from vdvae_lr.cli.source_names import is_run, model_name
from vdvae_lr.datasets.catalogue import DataSettings
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World, joined_world
from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.arithmetic import float32_convolutions
from vdvae_lr.evaluation.collapse_pictures import nearest_collapse_picture
from vdvae_lr.evaluation.document import (
    COLLAPSE_PICTURE,
    EVALUATION_NAME,
    NOISE_PICTURE,
    Evaluation,
    write_evaluation,
)
from vdvae_lr.evaluation.evaluation_table import evaluation_text
from vdvae_lr.evaluation.images import Pictures, as_pictures
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.noise_section import noise_pictures
from vdvae_lr.evaluation.picture_grid import picture_grid, save_png
from vdvae_lr.evaluation.quantities import group_resolutions
from vdvae_lr.evaluation.sections import Findings, SectionSettings, Task, measure_sections
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.vdvae import VDVAE
from vdvae_lr.network_errors import without_secrets
from vdvae_lr.whole_file import write_whole

TABLE_NAME = "evaluation.txt"


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure what a model's latents do, by latent group, by resolution and in total."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_WEIGHTS")]
    """A run's folder, a folder or file of weights, or a bundled or published name."""
    split: Literal["train", "valid", "test"] = "test"
    """Images to measure on."""
    examples: int = 0
    """Measure on the first so many images only; 0: all of them."""
    seed: int = 0
    """Of all noise."""
    out: str = ""
    """Folder for the results; empty: RUN/evaluation for a run, else evaluation-NAME."""
    name: str = ""
    """What tables call the model; empty: as its folder or file is called."""
    before: str = ""
    """The model as it was before fine-tuning; empty: what the run started from, where that can be found; none:
    leave it out."""
    batch: int = 32
    """Images at once on one process; changes no number."""
    images: int = 8
    """Images in the picture of the noise response; 0: no pictures."""
    dataset: str = ""
    """Data set to measure on; empty: the one the model was trained on."""
    data_root: str = ""
    """Folder that holds the data set's files; empty: where the run found them, or data/NAME."""
    num_workers: int = 0
    """Processes that read images ahead."""
    hps: str = ""
    """Preset of the model's settings, for weights that come without them (published .th files)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute, in float32."""
    sections: tyro.conf.OmitArgPrefixes[SectionSettings] = dataclasses.field(default_factory=SectionSettings)
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        for name, least in (("examples", 0), ("images", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {least} or more.")

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
    named = {without_secrets(settings.model): model}
    data = data_settings(named, settings.dataset, settings.data_root, settings.num_workers)
    source = open_split(data, settings.split, model.config)
    console = plain_console(world.is_main)
    measuring = Measuring(
        source,
        settings.examples or len(source),
        settings.batch,
        settings.seed,
        world,
        ConsoleTracker(console),
        num_workers=settings.num_workers,
    )
    settings.sections.check_images(measuring)
    check_writable(settings.folder, world)
    before, before_name, note = _before(settings, model, world)
    findings = measure_sections(Task(model, before, measuring, settings.sections))
    if not world.is_main:
        return
    findings = findings.and_also(Findings(notes=[note] if note else []))
    evaluation = _evaluation(settings, model, data, measuring, findings, before_name)
    write_evaluation(evaluation, settings.folder / EVALUATION_NAME)
    text = evaluation_text(evaluation)
    write_whole(settings.folder / TABLE_NAME, text.encode())
    console.print(text, soft_wrap=True)
    for left_out in _save_pictures(settings, model, source, evaluation):
        console.print(left_out)
    console.print(f"saved in {settings.folder}")


def _before(settings: EvaluateSettings, model: VDVAE, world: World) -> tuple[VDVAE | None, str, str]:
    """The model before fine-tuning, its name, and a sentence on why there is none."""
    if settings.before == "none":
        return None, "", ""
    if not settings.before:
        return load_start_of_run(model, settings.weights, world)
    before = load_named_before(settings.before, model, settings.weights, world)
    return before, without_secrets(settings.before), ""


def _evaluation(
    settings: EvaluateSettings,
    model: VDVAE,
    data: DataSettings,
    measuring: Measuring,
    findings: Findings,
    before: str,
) -> Evaluation:
    device, record = measuring.world.device, model.provenance.record
    versions = {
        "vdvae_lr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    return Evaluation(
        name=settings.name or model_name(settings.model),
        source=without_secrets(settings.model),
        model=dataclasses.asdict(model.config),
        dimensions=model.config.dimensions,
        resolutions=group_resolutions(model),
        dataset=data.dataset,
        split=settings.split,
        examples=measuring.count(),
        seed=settings.seed,
        versions=versions,
        quantities=tuple(findings.quantities),
        inputs=findings.inputs,
        details=findings.details,
        notes=(*findings.notes, *findings.not_finite()),
        settings={**dataclasses.asdict(settings.sections), "before": before},
        iteration=record.iteration if record is not None else None,
    )


def _save_pictures(settings: EvaluateSettings, model: VDVAE, source: ImageSource, evaluation: Evaluation) -> list[str]:
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
    try:
        rows, labels = _noise_rows(settings, model, source, evaluation)
    except UnmeasurableError as error:
        return [f"No {NOISE_PICTURE}: {error}"]
    save_png(picture_grid(rows, labels), folder / NOISE_PICTURE)
    return []


def _noise_rows(
    settings: EvaluateSettings, model: VDVAE, source: ImageSource, evaluation: Evaluation
) -> tuple[list[Pictures], list[str]]:
    """The first images of the split, and their reconstructions under each noise; without noise only once."""
    shown = range(min(settings.images, evaluation.examples))
    pixels = torch.from_numpy(source.read(shown)).permute(0, 3, 1, 2)
    rows, labels = [as_pictures(pixels)], ["image"]
    variances = settings.sections.noise_variances
    for unit in settings.sections.noise_units:
        if variances:
            more_rows, more_labels = noise_pictures(
                model, pixels, variances=variances, unit=unit, seed=settings.seed, name=""
            )
            rows += more_rows
            labels += more_labels
        variances = tuple(variance for variance in variances if variance > 0)
    return rows, labels
