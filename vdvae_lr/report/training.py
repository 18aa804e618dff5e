"""Charts of the numbers in the runs' logs. docs/logged_numbers.md defines each number."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.report.charts import Chart, Curve, alike, chart_figures
from vdvae_lr.report.content import Section
from vdvae_lr.report.hierarchy import GROUP_AXIS
from vdvae_lr.report.reported import Floats, Reported, as_number

_MOST_POINTS = 150  # a curve of more hides its dashes
_HELD_OUT = "eval"
_LR = "latent_reconstruction"
_OWN, _RECOVERED = "information_from_samples_{}nats_per_dim", "recovered_information_{}nats_per_dim"
_LR_SETTINGS = ("lr_form", "lr_image", "lr_latents", "lr_reduction", "lr_reading")


@dataclass(frozen=True)
class Logged:
    """One number of the log."""

    key: str
    title: str
    unit: str
    error: str = ""
    """Key of the standard error on held-out images."""
    scale: Literal["auto", "linear"] = "linear"


LOGGED = (
    Logged("negative_elbo_nats_per_dim", "bound (−ELBO)", "nats/dim", "negative_elbo_standard_error_nats_per_dim"),
    Logged("rate_nats_per_dim", "rate", "nats/dim"),
    Logged("distortion_nats_per_dim", "distortion", "nats/dim"),
    Logged(_LR, "LR loss, in its form's unit", "LR loss"),
    Logged(_OWN.format(""), "eq. 5", "nats/dim", _OWN.format("standard_error_")),
    Logged(_RECOVERED.format(""), "recovered information", "nats/dim", _RECOVERED.format("standard_error_")),
    Logged("alpha", "α, the weight of LR", "α"),
    Logged("gradient_norm", "gradient norm, before clipping", "norm", scale="auto"),
    Logged("skipped_updates", "skipped updates, since the start", "updates"),
)


def section(models: Sequence[Reported]) -> Section:
    """A chart for each number of the log, and the rate by latent group at the last held-out bound."""
    logged = [model for model in models if model.records]
    charts = [chart for number in LOGGED for chart in _charts(logged, number)]
    lines = max((thinned(*model.series("train", LOGGED[0].key), _MOST_POINTS)[2] for model in logged), default=1)
    note = f"Each point of a line is the mean of up to {lines} lines of the log." if lines > 1 else ""
    return Section(logged, chart_figures([*charts, *_last_rates(logged)]), note=note)


def _charts(models: Sequence[Reported], logged: Logged) -> list[Chart]:
    """One chart. For the LR loss, one for each definition of it among the runs."""
    if logged.key == _LR:  # without LR the log holds 0, which is no measurement
        forms = {model: _lr_form(model) for model in models if as_number(model.settings.get("alpha_T"))}
    else:
        forms = dict.fromkeys(models, "")
    return [
        Chart(f"{logged.title}{names}", "iteration", logged.unit, list(_curves(same, logged)), scale=logged.scale)
        for same, names in alike(forms)
    ]


def _lr_form(model: Reported) -> str:
    settings = asdict(ObjectiveSettings()) | dict(model.settings)  # an earlier version's run lacks later settings
    return str([settings[name] for name in _LR_SETTINGS])


def _curves(models: Sequence[Reported], logged: Logged) -> Iterator[Curve]:
    """For each run the training images as a line, and the held-out images as points."""
    for model in models:
        x, y, _ = thinned(*model.series("train", logged.key), _MOST_POINTS)
        yield Curve(model, x, y, marks="line" if len(x) > 1 else "both")
        x, y = model.series(_HELD_OUT, logged.key)
        _, errors = model.series(_HELD_OUT, logged.error)
        yield Curve(model, x, y, errors if len(errors) == len(x) else None, marks="points")


def thinned(x: Floats, y: Floats, most: int) -> tuple[Floats, Floats, int]:
    """Average neighbouring points until at most `most` are left; also returns how many points make one."""
    every = max(1, math.ceil(len(x) / most))
    rows = [np.pad(values, (0, -len(values) % every), constant_values=np.nan).reshape(-1, every) for values in (x, y)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row without a number: its mean is NaN
        return np.nanmean(rows[0], 1), np.nanmean(rows[1], 1), every


def _last_rates(models: Sequence[Reported]) -> list[Chart]:
    curves = {model: curve for model in models if (curve := _last_rates_curve(model)) is not None}
    return [
        Chart(
            f"rate by latent group, last held-out bound{names}",
            GROUP_AXIS,
            "nats/dim",
            [curves[model] for model in same],
            same[0].resolutions,
        )
        for same, names in alike({model: model.resolutions for model in curves})
    ]


def _last_rates_curve(model: Reported) -> Curve | None:
    lists = [record["group_rates_nats_per_dim"] for record in model.records if "group_rates_nats_per_dim" in record]
    if not lists or not isinstance(lists[-1], list) or len(lists[-1]) != len(model.resolutions):
        return None
    values = np.array([as_number(value) for value in lists[-1]], dtype=np.float64)
    return Curve(model, np.arange(len(values), dtype=np.float64), values)
