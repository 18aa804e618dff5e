"""The noise response of several models: a table for people, JSON for programs, and one picture.

Shapes: B images, C channels, H W resolution, L latent groups.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from vdvae_lr.datasets.inventory import Inventory
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.pictures.noise_pictures import noisy_places

FORMAT = "vdvae_lr noise response 1"
_CAPTION = (
    "± one standard error over images. Change of the mean image by noise of that variance on every latent of the "
    "groups. RMS: 0 for none, 1 for the full range; structural similarity: 1 for none."
)


@dataclass(frozen=True)
class NoiseReport:
    """What was measured on which models, and on what."""

    models: Mapping[str, Sequence[Quantity]]
    """By name; of every model the same quantities, as `measure_noise` makes them."""
    sources: Mapping[str, str]
    """What each model was loaded from, without secrets."""
    dataset: str
    split: str
    images: int
    seed: int
    resolutions: tuple[int, ...]
    """Of every latent group, top-down: (L,)."""
    groups: tuple[int, ...]
    """Which of them the noise of the totals was added to."""
    inventory: Inventory = field(default_factory=dict)
    """What the data set was found to hold."""


def noise_table(report: NoiseReport) -> Table:
    """Columns are models, rows measures by noise level; where they were measured, resolutions stand below."""
    where = noisy_places(report.groups, report.resolutions)
    title = f"{report.dataset}, {report.split} split, {report.images} images, seed {report.seed}, noise in {where}"
    table = Table(title=title, caption=_CAPTION, box=None, pad_edge=False, header_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("")
    for name in report.models:
        table.add_column(name, justify="right", no_wrap=True)
    for same in zip(*report.models.values(), strict=True):
        table.add_row(same[0].title, *(_cell(quantity.total) for quantity in same))
        if same[0].key.endswith("_0.0"):  # without noise nothing moves anywhere
            continue
        for level in same[0].resolutions:
            cells = [_cell(quantity.resolutions[level]) for quantity in same]
            table.add_row(f"    only in groups of {level}x{level}", *cells)
    return table


def _cell(measurement: Measurement | None) -> str:
    if measurement is None:
        return ""
    error = measurement.standard_error
    return f"{measurement.value:.4f}" if error is None else f"{measurement.value:.4f} ± {error:.4f}"


def noise_json(report: NoiseReport) -> str:
    """The numbers in full, by quantity and model, with what they were measured on."""
    about = {field.name: getattr(report, field.name) for field in dataclasses.fields(report) if field.name != "models"}
    quantities = {
        same[0].key: {
            "title": same[0].title,
            "unit": same[0].unit,
            "models": {name: _levels(quantity) for name, quantity in zip(report.models, same, strict=True)},
        }
        for same in zip(*report.models.values(), strict=True)
    }
    content = {"format": FORMAT, **about, "quantities": quantities}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _levels(quantity: Quantity) -> dict[str, object]:
    values = dataclasses.asdict(quantity)
    return {level: values[level] for level in ("total", "groups", "resolutions")}
