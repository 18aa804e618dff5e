"""Evaluations of several models side by side: the tables that `compare`, `noise` and `quality` print."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.table import Table

from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.evaluation.group_choice import parse_groups
from vdvae_lr.evaluation.noise_section import noise_bands
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.pictures.evaluation_pictures import noisy_places

ROWS = {
    "negative_elbo": "bound (-ELBO), nats/dim",
    "negative_elbo_bits": "bound (-ELBO), bits/dim",
    "negative_elbo_content": "bound on {content} dims, nats/dim",
    "negative_elbo_content_bits": "bound on {content} dims, bits/dim",
    "rate": "rate, nats/dim",
    "distortion": "distortion, nats/dim",
    "lr_information": "LR loss, sampled image, nats/dim",
    "information_from_samples": "information in own samples (eq. 5), nats/dim",
    "information_from_samples_fresh": "eq. 5, read by an encoder trained afresh, nats/dim",
    "recovered_mean_image": "recovered from mean image, nats/dim",
    "active_latents": "active latents, %",
    "active_latents_relative": "active latents, in prior's scale, %",
    "active_channels": "active channels, %",
    "active_channels_relative": "active channels, in prior's scale, %",
    "prior_scale": "mean prior scale",
    "noise_rms_raw_0.3": "image RMS, latent noise 0.3",
    "noise_rms_raw_0.4": "image RMS, latent noise 0.4",
    "noise_rms_prior_scale_0.3": "image RMS, latent noise 0.3, in prior's scale",
    "noise_rms_prior_scale_0.4": "image RMS, latent noise 0.4, in prior's scale",
    "noise_per_active_prior_scale_0.3": "image RMS per active latent, noise 0.3, in prior's scale",
}
"""Title by the quantity's key. Numbers in % have one decimal, all others have four. Below them stand the bands of
`_BANDS_OF`."""
_BANDS_OF = ("prior_scale", "0.3")
_COMPARISON_CAPTION = (
    "± one standard error over images. Bound: lower is better. Eq. 5 is a lower bound on I(Z;X) under the model; "
    "'recovered' is none. Image RMS: change (1 = full range) by noise of that variance on every latent; 'at 32x32' is "
    "its part of that spatial scale, and the parts' squares add up."
)
_NOISE_CAPTION = (
    "± one standard error over images. Change of the mean image by noise of that variance on every latent of the "
    "groups. RMS: 0 for none, 1 for the full range; 'at 32x32': its part of that spatial scale; structural similarity: "
    "1 for none."
)


QUALITY_CAPTION = (
    "FID, KID: 0 for equal distributions; ±: standard deviation over KID's subsets. Precision: share of pictures near "
    "images; recall: share of images near pictures."
)
_SPREAD = "kid_spread_"
_OF_QUALITY = ("fid_", "kid_", "precision_", "recall_")


def comparison_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """A column for each model, and a row for each of `ROWS` and each band that was measured: value ± standard error."""
    first = next(iter(evaluations.values()))
    table = _table(evaluations, f"{first.examples} images, seed {first.seed}", _COMPARISON_CAPTION)
    content = first.settings.get("content_dimensions", 0)
    bands = noise_bands(first.quantities).get(_BANDS_OF, {})
    for key, title in (ROWS | {band.key: band.title for band in bands.values()}).items():
        found = [each.quantity(key) for each in evaluations.values()]
        if any(quantity is not None for quantity in found):
            decimals = 1 if title.endswith("%") else 4
            cells = [_cell(quantity.total if quantity else None, decimals) for quantity in found]
            table.add_row(title.format(content=content), *cells)
    of_quality = quality_rows(list(evaluations.values()))
    for title, cells in of_quality:
        table.add_row(title, *cells)
    if of_quality:
        table.caption = f"{_COMPARISON_CAPTION} {QUALITY_CAPTION}"
    return table


def noise_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """A column for each model, a row for each measure by noise level, and below it its resolutions if measured."""
    first = next(iter(evaluations.values()))
    where = noisy_places(parse_groups(first.settings["noise_groups"], first.resolutions), first.resolutions)
    title = f"{first.examples} images, seed {first.seed}, noise in {where}"
    table = _table(evaluations, title, _NOISE_CAPTION)
    by_band = {quantity.key for bands in noise_bands(first.quantities).values() for quantity in bands.values()}
    for quantity in first.quantities:
        same = [each.quantity(quantity.key) or quantity for each in evaluations.values()]
        table.add_row(quantity.title, *(_cell(one.total) for one in same))
        if quantity.key.endswith("_0.0") or quantity.key in by_band:  # without noise nothing moves
            continue
        for level in quantity.resolutions:
            cells = [_cell(one.resolutions[level]) for one in same]
            table.add_row(f"    only in groups of {level}x{level}", *cells)
    return table


def quality_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """A column for each model, and for each set of pictures the rows FID, KID ± its spread, precision and recall."""
    first = next(iter(evaluations.values()))
    table = _table(evaluations, f"{first.examples:,} images, seed {first.seed}", QUALITY_CAPTION)
    for title, cells in quality_rows(list(evaluations.values())):
        table.add_row(title, *cells)
    return table


def quality_rows(evaluations: Sequence[Evaluation | None]) -> list[tuple[str, list[str]]]:
    """Title and cells of each row of `quality`. A cell is empty if that evaluation lacks the quantity."""
    known = {quantity.key: quantity.title for each in evaluations if each for quantity in each.quantities}
    rows = []
    for key, title in known.items():
        if key.startswith(_SPREAD) or not key.startswith(_OF_QUALITY):
            continue
        found = [each.quantity(key) if each else None for each in evaluations]
        if key.startswith("kid_"):
            spread = key.replace("kid_", _SPREAD, 1)
            spreads = [each.quantity(spread) if each else None for each in evaluations]
            cells = [_cell(_with_spread(*pair), 5) for pair in zip(found, spreads, strict=True)]
        else:
            decimals = 2 if key.startswith("fid_") else 3
            cells = [_cell(one.total if one else None, decimals) for one in found]
        rows.append((title, cells))
    return rows


def _with_spread(quantity: Quantity | None, spread: Quantity | None) -> Measurement | None:
    if quantity is None or quantity.total is None or spread is None or spread.total is None:
        return quantity.total if quantity else None
    return replace(quantity.total, standard_error=spread.total.value)


def _table(evaluations: Mapping[str, Evaluation], title: str, caption: str) -> Table:
    first = next(iter(evaluations.values()))
    title = f"{first.dataset}, {first.split} split, {title}"
    table = Table(title=title, caption=caption, box=None, pad_edge=False, header_style="bold")
    table.title_justify = table.caption_justify = "left"
    table.add_column("")
    for name in evaluations:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cell(measurement: Measurement | None, decimals: int = 4) -> str:
    if measurement is None or math.isnan(measurement.value):
        return ""
    value, error = f"{measurement.value:.{decimals}f}", measurement.standard_error
    return value if error is None else f"{value} ± {error:.{decimals}f}"
