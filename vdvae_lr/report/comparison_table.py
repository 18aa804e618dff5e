"""A comparison as a table for people and as JSON for programs."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.table import Table

from vdvae_lr.datasets.inventory import Inventory
from vdvae_lr.evaluation.quantities import Measurement


@dataclass(frozen=True)
class Row:
    """One measurement of every model."""

    key: str
    title: str
    decimals: int = 4


ROWS = (
    Row("negative_elbo", "bound (-ELBO), nats/dim"),
    Row("negative_elbo_bits", "bound (-ELBO), bits/dim"),
    Row("rate", "rate, nats/dim"),
    Row("distortion", "distortion, nats/dim"),
    Row("latent_reconstruction", "LR loss, sampled image, nats/dim"),
    Row("information_from_samples", "information in own samples (eq. 5), nats/dim"),
    Row("recovered_mean_image", "recovered from mean image, nats/dim"),
    Row("active_latents", "active latents, %", 1),
    Row("active_latents_relative", "active latents, in prior's scale, %", 1),
    Row("active_channels", "active channels, %", 1),
    Row("active_channels_relative", "active channels, in prior's scale, %", 1),
    Row("prior_scale", "mean prior scale"),
    Row("noise_response_raw_0.3", "image RMS, latent noise 0.3"),
    Row("noise_response_raw_0.4", "image RMS, latent noise 0.4"),
    Row("noise_response_prior_scale_0.3", "image RMS, latent noise 0.3, in prior's scale"),
    Row("noise_response_prior_scale_0.4", "image RMS, latent noise 0.4, in prior's scale"),
)
_CAPTION = (
    "± one standard error over images. Bound: lower is better. Eq. 5 is a lower bound on I(Z;X) under the model; "
    "'recovered' is none. Image RMS: change (1 = full range) by noise of that variance on every latent."
)


@dataclass(frozen=True)
class Comparison:
    """Models by name, each with its measurements by row key, and what they were measured on."""

    models: Mapping[str, Mapping[str, Measurement]]
    sources: Mapping[str, str]
    """What each model was loaded from."""
    dataset: str
    split: str
    examples: int
    seed: int
    dimensions: int
    """What nats/dim divides by."""
    content_dimensions: int = 0
    """Dimensions without padding, to state the bound on them too; 0: there is no padding to leave out."""
    inventory: Inventory = field(default_factory=dict)
    """What the data set was found to hold."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of this comparison, in order."""
        if not self.content_dimensions:
            return ROWS
        n = self.content_dimensions
        extra = (
            Row("negative_elbo_content", f"bound on {n} dims, nats/dim"),
            Row("negative_elbo_content_bits", f"bound on {n} dims, bits/dim"),
        )
        return (*ROWS[:2], *extra, *ROWS[2:])

    def measurement(self, model: str, key: str) -> Measurement:
        """One cell; bounds in other units are derived from the one measured."""
        measured = self.models[model]
        if key in measured:
            return measured[key]
        factor = 1 / math.log(2) if key.endswith("_bits") else 1.0
        if "_content" in key:
            factor *= self.dimensions / self.content_dimensions
        return measured["negative_elbo"].times(factor)


def comparison_table(comparison: Comparison) -> Table:
    """Columns are models, cells value ± standard error."""
    title = f"{comparison.dataset}, {comparison.split} split, {comparison.examples} images, seed {comparison.seed}"
    table = Table(title=title, caption=_CAPTION, box=None, pad_edge=False, header_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("")
    for name in comparison.models:
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.rows:
        cells = [_cell(comparison.measurement(name, row.key), row.decimals) for name in comparison.models]
        table.add_row(row.title, *cells)
    return table


def _cell(measurement: Measurement, decimals: int) -> str:
    value = f"{measurement.value:.{decimals}f}"
    error = measurement.standard_error
    return value if error is None else f"{value} ± {error:.{decimals}f}"


def comparison_json(comparison: Comparison) -> str:
    """The table's numbers in full, with what they were measured on."""
    about = {
        field.name: getattr(comparison, field.name)
        for field in dataclasses.fields(comparison)
        if field.name not in ("models", "sources")
    }
    rows = {
        row.key: {
            "title": row.title,
            "models": {name: dataclasses.asdict(comparison.measurement(name, row.key)) for name in comparison.models},
        }
        for row in comparison.rows
    }
    return json.dumps({**about, "sources": dict(comparison.sources), "rows": rows}, indent=2) + "\n"
