"""What was run, in words: where it started, on what, how long, with which settings and versions."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.hub.run_record import start_of_run
from vdvae_lr.report.data import Reported
from vdvae_lr.report.html import Html, element, folded, joined, table

_MISSING = "–"
_BEFORE = "before"  # an evaluation's setting: where the encoder before fine-tuning is from
_LR = ("lr_form", "lr_target", "lr_image", "lr_latents", "lr_reduction")


def facts(reported: Sequence[Reported]) -> Html:
    """A row a fact, a column a run; facts that nobody has are left out."""
    rows = [[title, *(fact(each) for each in reported)] for title, fact in _FACTS]
    known = [row for row in rows if any(cell != _MISSING for cell in row[1:])]
    return table(["", *(each.label for each in reported)], known, "What was run", class_="words")


def chosen_settings(reported: Sequence[Reported], unimportant: Collection[str]) -> Html:
    """The settings in which a run departs from its preset, or from the other runs; nothing where there are none.

    Args:
        reported: the models.
        unimportant: settings to leave out.
    """
    runs = [each for each in reported if each.is_run]
    names = [name for name in _names(runs) if name not in unimportant]
    names = [name for name in names if _differs(runs, name) or _is_chosen(runs, name)]
    if not names:
        return Html()
    rows = [[element("code", name), *(_setting_cell(each, name) for each in runs)] for name in names]
    shown = table(["setting", *(each.label for each in runs)], rows, "Settings that differ", class_="words")
    note = "Settings that change what is computed, where a run departs from its preset (bold) or from the other runs."
    return joined([element("h3", "Settings that differ"), element("p", note, class_="muted"), shown])


def all_settings(reported: Sequence[Reported]) -> Html:
    """Every setting of every run, folded up; nothing where no run is known."""
    runs = [each for each in reported if each.is_run]
    rows = [[element("code", name), *(_setting_cell(each, name) for each in runs)] for name in _names(runs)]
    if not rows:
        return Html()
    head = ["setting", *(each.label for each in runs)]
    return folded(f"All {len(rows)} settings of training", table(head, rows, "All settings", class_="words"))


def evaluation_settings(reported: Sequence[Reported]) -> Html:
    """How each evaluation was made, folded up; nothing where there is none."""
    evaluated = [(each.label, each.evaluation.settings) for each in reported if each.evaluation is not None]
    names = list(dict.fromkeys(name for _, settings in evaluated for name in settings))
    if not names:
        return Html()
    rows = [
        [element("code", name), *(_text(settings[name]) if name in settings else _MISSING for _, settings in evaluated)]
        for name in names
    ]
    head = ["setting", *(label for label, _ in evaluated)]
    return folded("Settings of the evaluation", table(head, rows, "Settings of the evaluation", class_="words"))


def differences_in_measuring(reported: Sequence[Reported]) -> list[str]:
    """Sentences on why numbers of two evaluations cannot be set side by side."""
    found = [each.evaluation for each in reported if each.evaluation is not None]
    sentences = []
    for what, name in (("data", "dataset"), ("split", "split"), ("images", "examples"), ("seed of the noise", "seed")):
        values = list(dict.fromkeys(str(getattr(evaluation, name)) for evaluation in found))
        if len(values) > 1:
            sentences.append(
                f"The evaluations differ in {what} ({', '.join(values)}): compare their numbers with care."
            )
    likelihoods = {
        tuple(str(evaluation.model.get(name)) for name in ("bits", "likelihood", "image_size", "image_channels"))
        for evaluation in found
    }
    if len(likelihoods) > 1:
        sentences.append(
            "The models differ in depth in bits, likelihood, image size or channels: their nats/dim are not comparable."
        )
    return [*sentences, *_differences_in_settings([evaluation.settings for evaluation in found])]


def _differences_in_settings(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """On how the evaluations were made; one without an encoder before fine-tuning has none that could differ."""
    names = dict.fromkeys(name for settings in found for name in settings if name != _BEFORE)
    values = {name: _values(found, name) for name in names}
    differing = [f"{name} ({' against '.join(each)})" for name, each in values.items() if len(each) > 1]
    encoders = _values([settings for settings in found if settings.get(_BEFORE)], _BEFORE)
    sentences = []
    if differing:
        sentences.append(
            f"The evaluations differ in {', '.join(differing)}: quantities that depend on them cannot be set side by "
            "side."
        )
    if len(encoders) > 1:
        sentences.append(
            f"The evaluations differ in the encoder before fine-tuning ({' against '.join(encoders)}): what it read "
            "cannot be set side by side."
        )
    return sentences


def _values(found: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """Of one setting, each once; a count of 0 left something out, which then differs from nothing."""
    made = [settings for settings in found if type(settings.get(name)) is not int or settings[name]]
    return list(dict.fromkeys(_text(settings[name]) if name in settings else "not set" for settings in made))


def _names(runs: Sequence[Reported]) -> list[str]:
    return list(dict.fromkeys(name for each in runs for name in each.settings))


def _differs(runs: Sequence[Reported], name: str) -> bool:
    return len({_text(each.settings.get(name)) for each in runs}) > 1


def _is_chosen(runs: Sequence[Reported], name: str) -> bool:
    return any(name in each.chosen for each in runs)


def _setting_cell(reported: Reported, name: str) -> str:
    if name not in reported.settings:
        return _MISSING
    text = _text(reported.settings[name])
    return element("strong", text) if name in reported.chosen else text


def _text(value: Any) -> str:
    """A setting's value; an address without its secrets."""
    if isinstance(value, str):
        return without_secrets(value) or "(empty)"
    return json.dumps(value, ensure_ascii=False)


def _kind(each: Reported) -> str:
    if each.is_run:
        return f"run {each.folder}"
    return f"evaluation {each.folder}, of {without_secrets(each.evaluation.source)}" if each.evaluation else _MISSING


def _start(each: Reported) -> str:
    if not each.is_run:
        return _MISSING
    _, average = start_of_run(each.settings)
    return without_secrets(average.name) or "random weights"


def _data(each: Reported) -> str:
    return str(each.settings.get("dataset", _MISSING))


def _model(each: Reported) -> str:
    model = each.evaluation.model if each.evaluation is not None else each.settings
    if "image_size" not in model:
        return _MISSING
    size, channels = model["image_size"], model.get("image_channels")
    groups = f", {len(each.resolutions)} latent groups of {model.get('zdim')} channels" if each.resolutions else ""
    return f"{size}×{size} images, {channels} {'channel' if channels == 1 else 'channels'}{groups}"


def _objective(each: Reported) -> str:
    alpha = each.settings.get("alpha_T")
    if alpha is None:
        return _MISSING
    if not alpha:
        return "none: α_T 0, the plain ELBO"
    return f"α_T {_text(alpha)}: {', '.join(str(each.settings.get(name, _MISSING)) for name in _LR)}"


def _length(each: Reported) -> str:
    if not each.is_run:
        return _MISSING
    batch = each.settings.get("global_batch") or each.settings.get("n_batch")
    planned = each.settings.get("iters")
    of = f" of {planned:,}" if isinstance(planned, int) else ""
    return f"{each.iteration:,}{of}, of {batch} images each"


def _checkpoint(each: Reported) -> str:
    return f"iteration {each.checkpoints[-1]:,}" if each.checkpoints else _MISSING


def _left_out(each: Reported) -> str:
    """From the last line of training: updates left out, and images replaced."""
    last = next((record for record in reversed(each.records) if record["kind"] == "train"), None)
    if last is None:
        return _MISSING
    return f"{last.get('skipped_updates', _MISSING)} updates skipped, {last.get('bad_images', _MISSING)} bad images"


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else _MISSING


def _measured_on(each: Reported) -> str:
    found = each.evaluation
    if found is None:
        return _MISSING
    return f"{found.dataset}, {found.split} split, {found.examples:,} images, seed {found.seed}"


def _versions(each: Reported) -> str:
    if each.evaluation is None:
        return _MISSING
    return ", ".join(f"{name} {version}" for name, version in each.evaluation.versions.items()) or _MISSING


_FACTS: tuple[tuple[str, Callable[[Reported], str]], ...] = (
    ("what", _kind),
    ("started from", _start),
    ("data", _data),
    ("model", _model),
    ("Latent Reconstruction", _objective),
    ("iterations", _length),
    ("newest checkpoint", _checkpoint),
    ("left out", _left_out),
    ("started", lambda each: _when(each.started)),
    ("log last written", lambda each: _when(each.last_written)),
    ("evaluated on", _measured_on),
    ("evaluated with", _versions),
)
