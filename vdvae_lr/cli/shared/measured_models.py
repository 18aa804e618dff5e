"""What `evaluate`, `compare` and `noise` share: which models, and one evaluation of each."""

import dataclasses
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro

from vdvae_lr import __version__
from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.cli.shared.held_out_images import FoundImages, HeldOutImages
from vdvae_lr.cli.shared.loaded_models import load_models
from vdvae_lr.cli.shared.progress import ConsoleTracker
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.task import Section, SectionSettings, Task
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import expanded
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.processes.world import World


@dataclass(frozen=True, kw_only=True)
class ModelsOnImages(HeldOutImages):
    """Several models and the held-out images that they are measured on."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=RUN_OR_WEIGHTS")]
    """Models, each as NAME=SOURCE: a run's folder, a folder or file of weights, or a bundled or published name."""


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
        sources[name] = expanded(source)
    if not sources:
        raise InputError("there is no model to measure; give at least one as NAME=RUN_OR_WEIGHTS.")
    return sources


def find_models(settings: ModelsOnImages, sources: Mapping[str, str], world: World) -> dict[str, PretrainedModel]:
    """The models by name, on the world's device. Every process must call this.

    Raises:
        InputError: weights that cannot be used, or models of different architectures.
    """
    models = load_models(sources, model_settings(settings.hps), settings.weights, world)
    check_comparable(models)
    return models


def check_comparable(models: Mapping[str, PretrainedModel]) -> None:
    """Refuse models that differ in anything but their weights: the same noise would mean something else in each.

    Raises:
        InputError: names the first setting that differs, and both models.
    """
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


def evaluate_models(
    settings: ModelsOnImages,
    models: Mapping[str, PretrainedModel],
    found: FoundImages,
    sections: SectionSettings,
    measure: Section,
    world: World,
    track: ConsoleTracker,
) -> dict[str, Evaluation]:
    """One evaluation of each model by name, on the same images and with the same noise.

    Every process must call this. `measure` is one section, or all of them (`measure_sections`).
    """
    sources = named_sources(settings.models)
    evaluations = {}
    for name, model in models.items():
        measuring = settings.measuring(found.source, world, track, name)
        findings = measure(Task(model, None, measuring, sections))
        evaluations[name] = evaluation_of(
            settings, name, sources[name], model, found, measuring.count(), findings, dataclasses.asdict(sections)
        )
    return evaluations


def evaluation_of(
    settings: HeldOutImages,
    name: str,
    source: str,
    model: PretrainedModel,
    found: FoundImages,
    images: int,
    findings: Findings,
    measured_with: Mapping[str, object],
) -> Evaluation:
    """What was found on one model, with all that a reader must know of it."""
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
        split=settings.split,
        examples=images,
        seed=settings.seed,
        versions=versions,
        quantities=tuple(findings.quantities),
        inputs=findings.inputs,
        details=findings.details,
        notes=(*findings.notes, *findings.without_value()),
        settings=measured_with,
        iteration=record.iteration if record is not None else None,
        inventory=found.inventory,
    )
