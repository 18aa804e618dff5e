"""What was run, in words: where it started, on what data, how long, with which settings and versions."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.hub.run_record import start_of_run
from vdvae_lr.report.content import MISSING, Cell, Table
from vdvae_lr.report.reported import Reported

_BEFORE = "before"  # setting of an evaluation: the encoder before fine-tuning
_LR = ("lr_form", "lr_target", "lr_image", "lr_latents", "lr_reduction")
_COMPARED = (("data", "dataset"), ("split", "split"), ("images", "examples"), ("seed of the noise", "seed"))
_LIKELIHOOD = ("bits", "likelihood", "image_size", "image_channels")


def facts_table(models: Sequence[Reported]) -> Table:
    """A row for each fact, a column for each model. A fact that no model has is left out."""
    rows = [[title, *(fact(model) for model in models)] for title, fact in _FACTS.items()]
    known = [row for row in rows if any(cell != MISSING for cell in row[1:])]
    return Table("What was run", ["", *(model.label for model in models)], known)


def _what(model: Reported) -> str:
    if model.is_run:
        return f"run {model.folder}"
    source = f", of {without_secrets(model.evaluation.source)}" if model.evaluation is not None else ""
    return f"evaluation {model.folder}{source}"


def _start(model: Reported) -> str:
    _, average = start_of_run(model.settings)
    return without_secrets(average.name) or "random weights"


def _model(model: Reported) -> str:
    settings = model.evaluation.model if model.evaluation is not None else model.settings
    if "image_size" not in settings:
        return MISSING
    size, channels = settings["image_size"], settings.get("image_channels")
    return f"{size}×{size} images, {channels} {'channel' if channels == 1 else 'channels'}{_latents(model)}"


def _latents(model: Reported) -> str:
    """How many latent groups there are, and of how many channels; empty if nothing says so."""
    if not model.resolutions:
        return ""
    known: tuple[int, ...] = ()
    settings = model.settings
    if model.evaluation is not None:
        known, settings = model.evaluation.channels, model.evaluation.model
    channels = " or ".join(map(str, sorted(set(known)))) or settings.get("zdim")
    count = len(model.resolutions)
    return f", {count} latent group{'' if count == 1 else 's'} of {channels} channels"


def _objective(model: Reported) -> str:
    alpha = model.settings.get("alpha_T")
    if alpha is None:
        return MISSING
    if not alpha:
        return "none: α_T 0, the plain ELBO"
    reading = model.settings.get("lr_reading", "full")
    read = f", reading {reading}" if reading != "full" else ""
    return f"α_T {_text(alpha)}: {', '.join(str(model.settings.get(name, MISSING)) for name in _LR)}{read}"


def _length(model: Reported) -> str:
    batch = model.settings.get("global_batch") or model.settings.get("n_batch")
    planned = model.settings.get("iters")
    of = f" of {planned:,}" if isinstance(planned, int) else ""
    return f"{model.iteration:,}{of}, of {batch} images each"


def _left_out(model: Reported) -> str:
    """The counts in the last line of training."""
    last = next((record for record in reversed(model.records) if record["kind"] == "train"), None)
    if last is None:
        return MISSING
    return f"{last.get('skipped_updates', MISSING)} updates skipped, {last.get('bad_images', MISSING)} bad images"


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else MISSING


def _measured_on(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return MISSING
    return f"{evaluation.dataset}, {evaluation.split} split, {evaluation.examples:,} images, seed {evaluation.seed}"


def _versions(evaluation: Evaluation | None) -> str:
    versions = {} if evaluation is None else evaluation.versions
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or MISSING


_FACTS: Mapping[str, Callable[[Reported], str]] = {
    "what": _what,
    "started from": lambda model: _start(model) if model.is_run else MISSING,
    "data": lambda model: str(model.settings.get("dataset", MISSING)),
    "model": _model,
    "Latent Reconstruction": _objective,
    "iterations": lambda model: _length(model) if model.is_run else MISSING,
    "newest checkpoint": lambda model: f"iteration {model.checkpoints[-1]:,}" if model.checkpoints else MISSING,
    "left out": _left_out,
    "started": lambda model: _when(model.started),
    "log last written": lambda model: _when(model.last_written),
    "evaluated on": lambda model: _measured_on(model.evaluation),
    "evaluated with": lambda model: _versions(model.evaluation),
}


def chosen_settings(models: Sequence[Reported], unimportant: Collection[str]) -> Table | None:
    """Settings of training that differ from a run's preset, or between runs; None if there are none.

    Args:
        models: all models of the page.
        unimportant: settings to leave out.
    """
    runs = {model: model.settings for model in models if model.is_run}
    names = [
        name
        for name in _names(runs.values())
        if name not in unimportant
        and (len(_values(runs.values(), name)) > 1 or any(name in model.chosen for model in runs))
    ]
    return _settings_table("Settings that differ", runs, names)


def all_settings(models: Sequence[Reported]) -> Table | None:
    """Every setting of training; None if there is no run."""
    runs = {model: model.settings for model in models if model.is_run}
    return _settings_table("All settings", runs, _names(runs.values()))


def evaluation_settings(models: Sequence[Reported]) -> Table | None:
    """Every setting of the evaluations; None if there is none."""
    evaluated = {model: model.evaluation.settings for model in models if model.evaluation is not None}
    return _settings_table("Settings of the evaluation", evaluated, _names(evaluated.values()))


_Settings = Mapping[str, Any]


def _names(settings: Iterable[_Settings]) -> list[str]:
    return list(dict.fromkeys(name for each in settings for name in each))


def _values(settings: Iterable[_Settings], name: str) -> list[str]:
    """The different values of one setting, as text."""
    return list(dict.fromkeys(_text(each[name]) if name in each else "not set" for each in settings))


def _settings_table(name: str, settings: Mapping[Reported, _Settings], names: Sequence[str]) -> Table | None:
    rows = [
        [Cell(setting, tag="code"), *(_setting_cell(model, each, setting) for model, each in settings.items())]
        for setting in names
    ]
    return Table(name, ["setting", *(model.label for model in settings)], rows) if rows else None


def _setting_cell(model: Reported, settings: _Settings, name: str) -> str | Cell:
    """A value; bold if the run's settings differ from its preset there."""
    if name not in settings:
        return MISSING
    chosen = settings is model.settings and name in model.chosen
    return Cell(_text(settings[name]), tag="strong") if chosen else _text(settings[name])


def _text(value: Any) -> str:
    """The value of a setting, without the secrets in an address."""
    if isinstance(value, str):
        return without_secrets(value) or "(empty)"
    return json.dumps(value, ensure_ascii=False)


def differences_in_measuring(models: Sequence[Reported]) -> list[str]:
    """Sentences that say why numbers of two evaluations cannot be compared."""
    found = [model.evaluation for model in models if model.evaluation is not None]
    sentences = []
    for what, name in _COMPARED:
        compared = dict.fromkeys(str(getattr(evaluation, name)) for evaluation in found)
        if len(compared) > 1:
            sentences.append(
                f"The evaluations differ in {what} ({', '.join(compared)}): compare their numbers with care."
            )
    if len({tuple(str(evaluation.model.get(name)) for name in _LIKELIHOOD) for evaluation in found}) > 1:
        sentences.append(
            "The models differ in bit depth, likelihood, image size or channels: their nats/dim are not comparable."
        )
    settings = [evaluation.settings for evaluation in found]
    made = {name: [each for each in settings if _is_made(each, name)] for name in _names(settings) if name != _BEFORE}
    differing = [
        f"{name} ({' against '.join(values)})" for name, each in made.items() if len(values := _values(each, name)) > 1
    ]
    if differing:
        sentences.append(
            f"The evaluations differ in {', '.join(differing)}: do not compare quantities that depend on them."
        )
    encoders = _values([each for each in settings if each.get(_BEFORE)], _BEFORE)
    if len(encoders) > 1:
        sentences.append(
            f"The evaluations differ in the encoder before fine-tuning ({' against '.join(encoders)}): do not compare "
            "what it read."
        )
    return sentences


def _is_made(settings: _Settings, name: str) -> bool:
    """Whether an evaluation made what the setting is about. A count of 0 leaves it out."""
    return type(settings.get(name)) is not int or bool(settings[name])
