"""The report: one HTML page on up to four models side by side.

The templates beside this file make the page; its style is style.css. jinja2 escapes every text, because names of runs,
settings and sentences in files are other people's text.
"""

from collections.abc import Collection, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from vdvae_lr import __version__
from vdvae_lr.report import facts, hierarchy, inputs, noise, pictures, quality, training, verdict
from vdvae_lr.report.charts import swatch
from vdvae_lr.report.reported import Reported

FIRST_LINE = "<!DOCTYPE html><!-- vdvae-lr report -->"
"""The mark of a report. The command replaces no file without it."""


def report_page(models: Sequence[Reported], unimportant: Collection[str] = ()) -> str:
    """The page on these models, in order. Equal files give equal pages.

    Args:
        models: as `read_reported` gives them.
        unimportant: settings whose differences are not shown at the top.
    """
    templates = Environment(
        loader=PackageLoader("vdvae_lr", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("page.html").render(
        labels=", ".join(model.label for model in models),
        notices=_notices(models),
        facts=facts.facts_table(models),
        chosen=facts.chosen_settings(models, unimportant),
        verdict=verdict.verdict(models),
        hierarchy=hierarchy.section(models),
        inputs=inputs.section(models),
        noise=noise.section(models),
        pictures=pictures.section(models),
        quality=quality.section(models),
        training=training.section(models),
        notes=_notes(models),
        settings=facts.all_settings(models),
        evaluation_settings=facts.evaluation_settings(models),
        swatch=swatch,
        version=__version__,
    )
    return f"{FIRST_LINE}\n{page}\n"


def _notices(models: Sequence[Reported]) -> list[str]:
    """What a reader must know first."""
    remarks = [f"{model.label}: {remark}" for model in models for remark in model.remarks]
    return [*remarks, *facts.differences_in_measuring(models)]


def _notes(models: Sequence[Reported]) -> dict[str, str]:
    """Each note of the evaluations, with the labels of the models that it is about."""
    notes: dict[str, list[str]] = {}
    for model in models:
        for document in (model.evaluation, model.quality):
            for note in document.notes if document is not None else ():
                notes.setdefault(note, []).append(model.label)
    return {note: ", ".join(labels) for note, labels in notes.items()}
