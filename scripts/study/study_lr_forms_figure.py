"""Draw the figure of docs/study_lr_forms.md: bound against information, one point a row, one panel a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from study_lr_forms_table import INFORMATION, PLAIN, Result, cell

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.files.whole_file import replacing

BOUND = "negative_elbo"
FAR = 1.03
"""Rows with a bound of at least this many times plain's are listed in words; drawn, they would squeeze the others."""
SAME_BOUND, SAME_INFORMATION = 0.0005, 0.006
"""Rows that differ from plain by less (a share of its bound; nats/dim) would cover it; they are listed in words."""
FIGURE = CHECKOUT_ROOT / "docs" / "figures" / "study_lr_forms.png"


@dataclass(frozen=True)
class Kind:
    """How a kind of row is drawn. The colours are by Okabe and Ito; markers alone also tell the kinds apart."""

    title: str
    colour: str
    marker: str


KINDS = {
    "plain": Kind("plain (α 0)", "#000000", "*"),
    "sample posterior": Kind("information or nll, sampled image, posterior latents", "#0072B2", "o"),
    "sample prior": Kind("information, sampled image, prior latents", "#D55E00", "s"),
    "mean posterior": Kind("information, mean image, posterior latents", "#56B4E9", "^"),
    "mean prior": Kind("information, mean image, prior latents", "#E69F00", "v"),
    "squared": Kind("squared errors (raw, standardised)", "#009E73", "D"),
}


def kind_of(result: Result) -> Kind:
    """The kind of a row, which says how it is drawn."""
    settings = result.settings
    if result.name == PLAIN:
        return KINDS[PLAIN]
    if settings["lr_form"] in ("raw", "standardised"):
        return KINDS["squared"]
    return KINDS[f"{settings['lr_image']} {settings['lr_latents']}"]


def label_of(result: Result) -> str:
    """The label of a row: α, and what differs from the default and is not shown by the marker."""
    settings = result.settings
    if result.name == PLAIN:
        return "plain"
    words = [] if settings["lr_form"] == "information" else [settings["lr_form"]]
    words += ["live"] if settings["lr_target"] == "live" else []
    if kind_of(result) is KINDS["squared"]:
        words += ["mean image"] if settings["lr_image"] == "mean" else []
        words.append({"sum": "summed", "mean": "averaged"}[settings["lr_reduction"]])
    return " ".join([*words, f"α {settings['alpha_T']:g}"])


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw bound against information, one panel a data set. Bars are standard errors over seeds."""
    titles = {"fashion": "Fashion-MNIST, 32×32", "photos": "photographs, 16×16 (data not shipped)"}
    panels = [data for data in titles if any(result.data == data for result in results)]
    figure = Figure(figsize=(7.2 * len(panels), 6.4), layout="constrained")
    for axes, data in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        rows: dict[str, list[Result]] = {}
        for result in (result for result in results if result.data == data):
            rows.setdefault(result.name, []).append(result)
        _panel(axes, rows)
        axes.set_title(titles[data])
    drawn = [kind for kind in KINDS.values() if any(kind_of(result) is kind for result in results)]
    handles = [Line2D([], [], color=k.colour, marker=k.marker, linestyle="", label=k.title) for k in drawn]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _panel(axes: Axes, rows: Mapping[str, Sequence[Result]]) -> None:
    plain = cell(rows[PLAIN], BOUND).value
    near = {name: row for name, row in rows.items() if cell(row, BOUND).value < FAR * plain}
    beside = [row for name, row in near.items() if name != PLAIN and _is_beside(row, rows[PLAIN])]
    bounds = [cell(row, BOUND).value for row in near.values()]
    for row, bound in zip(near.values(), bounds, strict=True):
        leftwards = bound > (min(bounds) + max(bounds)) / 2
        _point(axes, row, leftwards=leftwards, label="" if row in beside else label_of(row[0]))
    words = [f"beside plain: {row[0].name.replace('-', ' ')}" for row in beside]
    words += [f"outside, at {_place(row)}: {name.replace('-', ' ')}" for name, row in rows.items() if name not in near]
    axes.text(0.02, 0.98, "\n".join(words), va="top", transform=axes.transAxes, fontsize=7)
    axes.axvline(1.01 * plain, color="0.6", linestyle=":", linewidth=1)
    foot = axes.get_xaxis_transform()
    axes.text(1.01 * plain, 0.02, "plain + 1% ", transform=foot, ha="right", fontsize=8, color="0.4")
    axes.set_xlabel("held-out bound, nats/dim (lower is better)")
    axes.set_ylabel("information in own samples (eq. 5), nats/dim")
    axes.margins(0.08, 0.2)
    axes.grid(alpha=0.2)


def _is_beside(row: Sequence[Result], plain: Sequence[Result]) -> bool:
    bound, information = cell(plain, BOUND).value, cell(plain, INFORMATION).value
    return (
        abs(cell(row, BOUND).value - bound) < SAME_BOUND * bound
        and abs(cell(row, INFORMATION).value - information) < SAME_INFORMATION
    )


def _point(axes: Axes, row: Sequence[Result], *, leftwards: bool, label: str) -> None:
    kind, x, y = kind_of(row[0]), cell(row, BOUND), cell(row, INFORMATION)
    over, up = (x.error, y.error) if len(row) > 1 else (None, None)
    style: dict[str, Any] = {"color": kind.colour, "marker": kind.marker, "capsize": 3, "linestyle": ""}
    axes.errorbar(x.value, y.value, xerr=over, yerr=up, **style)
    where = (x.value, y.value)
    words: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}
    side: Literal["left", "right"] = "right" if leftwards else "left"
    if kind is KINDS["squared"]:  # these labels are long, and their points close together
        axes.annotate(label, where, (2, -4), ha="right", va="top", rotation=20, rotation_mode="anchor", **words)
    else:
        below = kind is KINDS["plain"]
        axes.annotate(label, where, (-6 if leftwards else 6, -11 if below else 4), ha=side, **words)


def _place(row: Sequence[Result]) -> str:
    return f"{cell(row, BOUND).value:.3f}, {cell(row, INFORMATION).value:.3f}"
