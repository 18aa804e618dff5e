"""Draw the figures of docs/study_price.md: price against information, and rate and distortion over iterations."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from price_theory import Loss, equilibrium, learned_prior_equilibrium, least_price
from study_lr_forms_table import INFORMATION, PLAIN, Result

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.files.whole_file import replacing

BOUND = "negative_elbo"
PRICE_FIGURE = CHECKOUT_ROOT / "docs" / "figures" / "study_price.png"
CURVES_FIGURE = CHECKOUT_ROOT / "docs" / "figures" / "study_price_curves.png"
ENLARGED = (-0.05, 0.15), (-0.015, 0.02)  # nats/dim: gains and prices of the enlarged panel
MOST_GAIN = 0.95
RATE = "rate_nats_per_dim"
AVERAGED = 200  # iterations
GROWING = ("tuned-constant-0.3", "tuned-constant-1", "tuned-prior-0.1", "tuned-prior-0.3")
FIRST_DRAWN = 250  # the fall before this iteration would flatten the rest
CURVES = (PLAIN, "constant-0.3", "constant-1", "prior-0.3", "plain-times4", "constant-0.3-times4")


@dataclass(frozen=True)
class Family:
    """How rows whose names begin alike are drawn. The colours are by Okabe and Ito; markers tell the families apart."""

    title: str
    colour: str
    marker: str


FAMILIES = {
    "-reading": Family("LR on a low-pass of x̂", "#009E73", "h"),
    "-down": Family("LR, α falling", "#000000", "<"),
    "-beta": Family("LR with another β", "#CC79A7", ">"),
    "constant": Family("LR, posterior latents, constant target", "#0072B2", "o"),
    "live": Family("LR, posterior latents, live target", "#56B4E9", "^"),
    "prior": Family("LR, latents from the prior", "#D55E00", "s"),
    "paper": Family("the paper's literal form", "#009E73", "D"),
    "beta": Family("β below 1, no LR", "#CC79A7", "v"),
    "free": Family("free bits, no LR", "#E69F00", "P"),
    "warmup": Family("KL warm-up, no LR", "#000000", "X"),
}
"""By a part of the row's name; the first that is in it counts."""
TUNED = "tuned-"


def draw_price(results: Sequence[Result], data: str, path: Path) -> None:
    """Draw what each row gained over plain, and at what price; and what the linear model predicts."""
    here = [result for result in results if (result.data, result.seed) == (data, 0) and "times" not in result.name]
    by_name = {result.name: result for result in here if INFORMATION in result.measured}
    figure = Figure(figsize=(13, 6), layout="constrained")
    whole, enlarged = figure.subplots(1, 2)
    for axes in (whole, enlarged):
        _theory(axes)
        for name in by_name:
            _point(axes, by_name, name, all_labels=axes is enlarged)
        axes.axhline(0, color="0.6", linewidth=1)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.set_xlabel("information gained over plain (eq. 5), nats/dim")
        axes.grid(alpha=0.2)
    whole.set_ylabel("price: bound above plain, nats/dim")
    whole.set_xlim(-0.2, MOST_GAIN)
    whole.set_ylim(-0.03, 0.4)
    enlarged.set_xlim(*ENLARGED[0])
    enlarged.set_ylim(*ENLARGED[1])
    enlarged.set_title("enlarged")
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(
        dict(zip(labels, handles, strict=True)).values(), dict.fromkeys(labels), loc="outside lower center", ncols=3
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _theory(axes: Axes) -> None:
    information = np.linspace(0, MOST_GAIN, 100)
    axes.plot(
        information, [least_price(each) for each in information], color="#D55E00", label="linear model: least price"
    )
    alphas = np.linspace(0.02, 1, 25)
    constant = [Loss(alpha, latents="posterior") for alpha in alphas]
    for solve, style, words in (
        (equilibrium, "--", "linear model: constant target"),
        (learned_prior_equilibrium, ":", "linear model: constant target, learned prior"),
    ):
        found = [direction for direction in map(solve, constant) if direction is not None]
        axes.plot([d.information for d in found], [d.price for d in found], style, color="#0072B2", label=words)


def _point(axes: Axes, rows: Mapping[str, Result], name: str, all_labels: bool) -> None:
    """A row against plain training of the same start. Rows that fine-tune a settled model are hollow.

    Without `all_labels`, rows in the enlarged panel are labelled only there.
    """
    start = TUNED if name.startswith(TUNED) else ""
    kind = name.removeprefix(start)
    family = next((family for part, family in FAMILIES.items() if part in kind), None)
    if family is None or kind.startswith("reopened") or start + PLAIN not in rows:
        return
    x, y = (rows[name].measured[key][0] - rows[start + PLAIN].measured[key][0] for key in (INFORMATION, BOUND))
    style: dict[str, Any] = {"color": family.colour, "marker": family.marker, "linestyle": ""}
    axes.plot(x, y, fillstyle="none" if start else "full", label="" if start else family.title, **style)
    if not all_labels and all(least <= each <= most for each, (least, most) in zip((x, y), ENLARGED, strict=True)):
        return
    label = kind.partition("-")[2].replace("-", " ")
    axes.annotate(label, (x, y), (5, 3), textcoords="offset points", fontsize=7, annotation_clip=True)


def draw_curves(folder: Path, data: str, preset: str, path: Path) -> None:
    """Draw rate and distortion of some rows over training, and what LR adds to the rate of a settled model.

    Args:
        folder: the results of all data sets.
        data: the images.
        preset: settings of their model.
        path: the picture to write.
    """
    figure = Figure(figsize=(17, 4.5), layout="constrained")
    *over_iterations, growth = figure.subplots(1, 3)
    for axes, key in zip(over_iterations, (RATE, "distortion_nats_per_dim"), strict=True):
        for name in CURVES:
            result = _seed_0(folder / data, name)
            if result is not None:
                lines = result["curve"]
                trained = [line for line in lines if line["kind"] == "train" and line["iteration"] >= FIRST_DRAWN]
                points = [(line["iteration"], line[key]) for line in trained or lines]
                axes.plot(*zip(*points, strict=True), label=name.replace("-", " "), linewidth=1)
        axes.set_ylabel(key.replace("_nats_per_dim", ", nats/dim").capitalize())
        axes.set_xlabel("iteration")
    for name, points in added_rates(folder / data, preset).items():
        growth.plot(*zip(*points, strict=True), marker=".", label=name.replace("-", " "), linewidth=1)
    growth.set_xlabel("sum of α × learning rate so far")
    growth.set_ylabel("Rate above plain fine-tuning, nats/dim")
    growth.set_xscale("log")
    growth.set_yscale("log")
    for axes in (*over_iterations, growth):
        axes.grid(alpha=0.2)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def added_rates(folder: Path, preset: str) -> dict[str, list[tuple[float, float]]]:
    """How LR opens a settled model: the sum of α × learning rate, and the rate above plain fine-tuning's, in nats/dim.

    By row; each point is the average over `AVERAGED` iterations up to there. Points without a gain are left out.
    """
    plain = _rates(_seed_0(folder, TUNED + PLAIN))
    found = {}
    for name in GROWING:
        result = _seed_0(folder, name)
        if result is None or not plain:
            continue
        settings, _ = resolve_settings(["--hps", preset, *result["settings"]["words"].split()], "train.py")
        iterations = result["iters"]
        pulls = [
            settings.objective.alpha_at(i, iterations) * settings.optimisation.lr_at(i, iterations)
            for i in range(iterations)
        ]
        rates, points = _rates(result), []
        for end in range(AVERAGED, iterations + 1, AVERAGED):
            added = [rates[i] - plain[i] for i in rates.keys() & plain.keys() if end - AVERAGED < i <= end]
            if added and sum(added) > 0:
                points.append((math.fsum(pulls[:end]), sum(added) / len(added)))
        if points:
            found[name] = points
    return found


def _seed_0(folder: Path, name: str) -> dict[str, Any] | None:
    """A row's result; None if there is none."""
    file = folder / f"{name}-seed0.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _rates(result: dict[str, Any] | None) -> dict[int, float]:
    """The rate by iteration, while training."""
    lines = result["curve"] if result is not None else []
    return {line["iteration"]: line[RATE] for line in lines if line["kind"] == "train"}
