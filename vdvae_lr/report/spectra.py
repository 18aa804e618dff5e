"""The leading singular values of the decoder's Jacobian, all latent groups together: a curve a model.

Shapes: K singular values.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vdvae_lr.report.charts import Chart, Charts, Curve
from vdvae_lr.report.data import Reported, as_number
from vdvae_lr.report.html import Html, joined

_UNITS = {"raw": "latents as they are", "prior_scale": "latents in σ_p"}


def leading_spectra(reported: Sequence[Reported], charts: Charts) -> Html:
    """A chart for latents as they are and one in units of σ_p, for real images; nothing where nobody measured them."""
    figures = []
    for unit, words in _UNITS.items():
        curves = [curve for run, each in enumerate(reported) if (curve := _curve(each, run, unit)) is not None]
        title = f"leading singular values of the decoder's Jacobian, all groups, {words}"
        figures.append(charts.figure(Chart(title, "number, 1 = largest", "mean over images", curves)))
    return joined(figures)


def _curve(reported: Reported, run: int, unit: str) -> Curve | None:
    spectra = [[as_number(value) for value in entry["singular_values"]] for entry in _entries(reported, unit)]
    count = min(map(len, spectra), default=0)  # those that every image has
    if count == 0:
        return None
    values = np.array([spectrum[:count] for spectrum in spectra], dtype=np.float64).mean(0)  # (K,)
    return Curve(run, np.arange(1.0, count + 1), values)


def _entries(reported: Reported, unit: str) -> Iterator[Mapping[str, Any]]:
    """What `evaluate` left of the spectra of real images, as far as it is what it should be."""
    found = reported.evaluation.details.get("spectra") if reported.evaluation is not None else None
    for entry in found if isinstance(found, list) else []:
        if not isinstance(entry, dict) or not isinstance(entry.get("singular_values"), list):
            continue
        if (entry.get("of"), entry.get("unit"), entry.get("group", 0)) == ("images", unit, None):
            yield entry
