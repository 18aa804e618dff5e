"""Curves of training, from the lines of runs' logs; docs/logged_numbers.md defines each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vdvae_lr.report.charts import Chart, Charts, Curve, Floats, legend, thinned
from vdvae_lr.report.data import Reported, as_number
from vdvae_lr.report.hierarchy import BARS, alike, last_rates
from vdvae_lr.report.html import Html, boxes, element, joined

_MOST_POINTS = 150  # of a curve: of more, dashes cannot be told apart
_HELD_OUT = "eval"
_LR = "latent_reconstruction"
_LR_SETTINGS = ("lr_form", "lr_image", "lr_latents", "lr_reduction")


@dataclass(frozen=True)
class Logged:
    """One number of the log."""

    key: str
    title: str
    unit: str
    error: str = ""
    """The key of its standard error on held-out images."""
    scale: Literal["auto", "linear"] = "linear"


LOGGED = (
    Logged("negative_elbo_nats_per_dim", "bound (−ELBO)", "nats/dim", "negative_elbo_standard_error_nats_per_dim"),
    Logged("rate_nats_per_dim", "rate", "nats/dim"),
    Logged("distortion_nats_per_dim", "distortion", "nats/dim"),
    Logged(_LR, "LR loss, in its form's unit", "LR loss"),
    Logged("alpha", "α, the weight of LR", "α"),
    Logged("gradient_norm", "gradient norm, before clipping", "norm", scale="auto"),
    Logged("skipped_updates", "skipped updates, since the start", "updates"),
)


def training_curves(reported: Sequence[Reported], charts: Charts) -> Html:
    """A chart for each number of the log, and the rate by latent group at the end; nothing where there is no log."""
    most = max([1, *(_every(each) for each in reported)])
    logged_runs = [run for run, each in enumerate(reported) if each.records]
    drawn = [charts.figure(chart) for logged in LOGGED for chart in _charts(reported, logged)]
    figures = joined([*drawn, last_rates(reported, charts)])
    if not figures:
        return Html()
    note = f"Lines: training images, weights as they were. Marks: held-out images, averaged weights. {BARS}"
    if most > 1:
        note += f" A line's points are means over up to {most} lines of the log."
    return joined([legend(charts.runs, logged_runs), element("p", note, class_="muted"), boxes("charts", figures)])


def _every(reported: Reported) -> int:
    return thinned(*reported.series("train", LOGGED[0].key), _MOST_POINTS)[2]


def _charts(reported: Sequence[Reported], logged: Logged) -> list[Chart]:
    """One; for the LR loss one for each definition among the runs."""
    forms = {run: "" for run, each in enumerate(reported) if each.records}
    if logged.key == _LR:  # without LR the log says 0, which is no measurement
        forms = {run: str(form) for run in forms if (form := _form(reported[run])) is not None}
    return [_chart(reported, logged, addition, runs) for addition, runs in alike(reported, forms)]


def _form(reported: Reported) -> list[object] | None:
    """The settings that say what the LR loss is; None where it has no weight."""
    settings = reported.settings
    return [settings.get(name) for name in _LR_SETTINGS] if as_number(settings.get("alpha_T")) else None


def _chart(reported: Sequence[Reported], logged: Logged, addition: str, runs: Sequence[int]) -> Chart:
    curves = []
    for run in runs:
        each = reported[run]
        x, y, _ = thinned(*each.series("train", logged.key), _MOST_POINTS)
        curves.append(Curve(run, x, y, marks="line" if len(x) > 1 else "both"))
        x, y = each.series(_HELD_OUT, logged.key)
        curves.append(Curve(run, x, y, _errors(each, logged, len(x)), marks="points"))
    return Chart(f"{logged.title}{addition}", "iteration", logged.unit, curves, scale=logged.scale)


def _errors(reported: Reported, logged: Logged, count: int) -> Floats | None:
    """Where each of the held-out lines has one."""
    _, errors = reported.series(_HELD_OUT, logged.error)
    return errors if len(errors) == count else None
