"""A report: one HTML page on up to four runs side by side, complete in itself."""

from collections.abc import Collection, Sequence
from pathlib import Path

from vdvae_lr import __version__
from vdvae_lr.evaluation.document import COLLAPSE_PICTURE, NOISE_PICTURE
from vdvae_lr.report.charts import Charts
from vdvae_lr.report.data import Reported
from vdvae_lr.report.facts import (
    all_settings,
    chosen_settings,
    differences_in_measuring,
    evaluation_settings,
    facts,
)
from vdvae_lr.report.hierarchy import hierarchy, totals
from vdvae_lr.report.html import Html, boxes, element, joined, page, section, with_code
from vdvae_lr.report.inputs import inputs_nearest_collapse
from vdvae_lr.report.noise import noise_response
from vdvae_lr.report.pictures import figure
from vdvae_lr.report.training import training_curves

_MOST_OTHER_PICTURES = 6


def report_page(reported: Sequence[Reported], unimportant: Collection[str] = ()) -> str:
    """The page on these models, in order; equal files give equal pages.

    Args:
        reported: at most `MOST_RUNS`, each with another label.
        unimportant: settings whose differences need not be shown first.
    """
    labels = [each.label for each in reported]
    charts = Charts(labels)
    sections = [
        ("What was run", "run", [facts(reported), chosen_settings(reported, unimportant)]),
        ("In total", "total", [totals(reported)]),
        ("Over the hierarchy", "hierarchy", [hierarchy(reported, charts)]),
        ("Inputs nearest collapse", "inputs", [inputs_nearest_collapse(reported, charts)]),
        ("Noise in the latents", "noise", [noise_response(reported, charts)]),
        ("Pictures", "pictures", [_pictures(reported)]),
        ("Training", "training", [training_curves(reported, charts)]),
        ("Settings and notes", "settings", [_notes(reported), all_settings(reported), evaluation_settings(reported)]),
    ]
    made = [(title, name, section(title, name, *content)) for title, name, content in sections]
    links = [element("li", element("a", title, href=f"#{name}")) for title, name, content in made if content]
    return page(
        f"Report: {', '.join(labels)}",
        element("header", element("h1", f"Report: {', '.join(labels)}"), element("nav", element("ul", *links))),
        _notices(reported),
        *(content for _, _, content in made),
        element("footer", f"Written by vdvae_lr {__version__}. Its docs/evaluation.md defines every quantity."),
    )


def _notices(reported: Sequence[Reported]) -> Html:
    """What a reader must know first."""
    remarks = [f"{each.label}: {remark}" for each in reported for remark in each.remarks]
    sentences = [*remarks, *differences_in_measuring(reported)]
    items = joined(element("li", with_code(text)) for text in sentences)
    return element("ul", items, class_="notices") if items else items


def _notes(reported: Sequence[Reported]) -> Html:
    """What the evaluations themselves say."""
    notes: dict[str, list[str]] = {}
    for each in reported:
        for note in each.evaluation.notes if each.evaluation is not None else ():
            notes.setdefault(note, []).append(each.label)
    items = [
        element("li", element("strong", f"{', '.join(labels)}: "), with_code(note)) for note, labels in notes.items()
    ]
    return joined([element("h3", "Notes of the evaluation"), element("ul", *items)]) if items else Html()


def _pictures(reported: Sequence[Reported]) -> Html:
    """Each run's first and last picture while training, and what else lies beside its evaluation."""
    figures = [found for each in reported for found in _pictures_of(each)]
    return boxes("pictures", *figures)


def _pictures_of(each: Reported) -> list[Html]:
    drawn = list(dict.fromkeys([*each.pictures[:1], *each.pictures[-1:]]))
    text = "Held-out images, their reconstructions, and samples, by averaged weights."
    figures = [figure(path, f"{each.label}, iteration {_iteration(path)}", text) for path in drawn]
    others = [path for path in each.evaluation_pictures if path.name not in (COLLAPSE_PICTURE, NOISE_PICTURE)]
    return figures + [figure(path, f"{each.label}, {path.name}", "") for path in others[:_MOST_OTHER_PICTURES]]


def _iteration(path: Path) -> str:
    number = path.stem.removeprefix("step-")
    return f"{int(number):,}" if number.isdecimal() else number
