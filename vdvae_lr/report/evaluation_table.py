"""An evaluation as text: totals, a row for each resolution and latent group, noise by spatial scale, and the inputs."""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.evaluation.noise_section import noise_bands
from vdvae_lr.evaluation.quantities import InputRates, Measurement, Quantity

WIDTH = 100  # characters in a line of text; tables are narrower
_UNBOUNDED = 1000
_LONGEST_TITLE = 57  # longer ones go on in the next line
_DIGITS = 4  # of a number whose error does not say how many it has
_NEGLIGIBLE = 1e-9  # an error below this share of its number is rounding
_SHOWN_QUANTILES = ("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1")
_LEGEND = (
    "Groups are counted from 0, the coarsest. rate: KL(q‖p), and its share of the total in %. active: channels in %, "
    "and in the prior's scale. recovered: information from sampled images; eq. 5: from the model's own samples. R²: of "
    "latents read back from sampled images. gap: from the true posterior. rate, recovered, eq. 5 and gap in nats/dim. "
    "evaluation.json has every quantity of every group with its error; docs/evaluation.md says what each is."
)
COLUMNS = {
    "rate": "rate",
    "active_channels": "active",
    "active_channels_relative": "in σ_p",
    "prior_scale": "σ_p",
    "recovered_sampled_image": "recovered",
    "information_from_samples": "eq. 5",
    "latent_r2_sampled_image": "R²",
    "posterior_gap": "gap",
}
"""Header by the quantity's key, in the tables by resolution and by group."""
_SHARE_AFTER = "rate"
_FRESH = "information_from_samples_fresh"
READERS = {
    "information_from_samples": "its own",
    "information_from_samples_before": "before fine-tuning",
    _FRESH: "trained afresh",
}
"""Encoder by the key of what it reads from the model's own samples."""


def evaluation_text(evaluation: Evaluation) -> str:
    """All tables as plain text that ends in a new line."""
    levels = len(set(evaluation.resolutions))
    about = (
        f"{evaluation.name}: {evaluation.dataset}, {evaluation.split} split, {evaluation.examples:,} images, seed "
        f"{evaluation.seed}\n{len(evaluation.resolutions)} latent groups at {levels} resolutions, "
        f"{evaluation.dimensions:,} dimensions an image"
    )
    notes = [_wrapped(f"Note: {note}") for note in evaluation.notes]
    return "\n\n".join(piece.rstrip("\n") for piece in [about, *_parts(evaluation), *notes]) + "\n"


def _parts(evaluation: Evaluation) -> Iterator[str]:
    yield _part("In total, ± one standard error over images", _totals(evaluation))
    found = [evaluation.quantity(key) for key in COLUMNS]
    shown = [quantity for quantity in found if quantity is not None and quantity.groups]
    if shown:
        yield _part("By resolution", _by_resolution(evaluation, shown))
        yield _part("By latent group, coarse to fine", _by_group(evaluation, shown), _LEGEND)
    if evaluation.quantity(_FRESH) is not None:
        heading = "Information in the model's own samples (eq. 5, nats/dim), by the encoder that reads them"
        yield _part(heading, _by_reader(evaluation))
    if bands := noise_bands(evaluation.quantities):
        yield _part("Image RMS by spatial scale, finest (left) to mean colour (1), under latent noise", _by_band(bands))
        (unit, variance), strongest = list(bands.items())[-1]
        if all(quantity.groups for quantity in strongest.values()):
            heading = f"The same for noise {_noise_words(unit, variance)} in one latent group alone"
            yield _part(heading, _by_band_and_group(evaluation, strongest))
    if evaluation.inputs is not None:
        heading = "The share of images whose KL(q(z|x)‖p(z)) is at most ε, and which the paper calls ε-collapsed"
        yield _part(heading, _quantiles(evaluation.inputs), "Here q stands for the true posterior.")
        yield _part(f"Images nearest collapse, of {evaluation.inputs.images:,}", _nearest(evaluation.inputs))


def _part(heading: str, table: Table, legend: str = "") -> str:
    console = Console(file=io.StringIO(), width=_UNBOUNDED, markup=False, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    rendered = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    return f"{heading}\n{rendered}{_wrapped(legend)}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(*right: str, left: str = "") -> Table:
    """A table without lines. Headers of numbers stand above the last digit; `left` heads a column of words."""
    table = Table(box=None, pad_edge=False, header_style="", show_header=True)
    if left:
        table.add_column(left.strip(), max_width=_LONGEST_TITLE)
    for header in right:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _totals(evaluation: Evaluation) -> Table:
    table = _table("value", left=" ")
    table.add_column("")
    table.add_column("unit")
    table.add_column("images", justify="right")
    by_band = {quantity.key for bands in noise_bands(evaluation.quantities).values() for quantity in bands.values()}
    for quantity in evaluation.quantities:
        if quantity.total is not None and quantity.key not in by_band:
            table.add_row(quantity.title, *stated(quantity.total), quantity.unit, f"{quantity.total.images:,}")
    return table


def stated(measurement: Measurement) -> tuple[str, str]:
    """A value to the second digit of its error, and `± error`; without an error a few digits, and nothing."""
    value, error = measurement.value, measurement.standard_error
    if error is None or not math.isfinite(error) or not math.isfinite(value):
        return short(value), ""
    if error <= _NEGLIGIBLE * abs(value):
        return short(value), "± 0"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f}", f"± {error:.{decimals}f}"


def stated_text(measurement: Measurement) -> str:
    """The same as one text."""
    return " ".join(stated(measurement)).strip()


def short(value: float, digits: int = _DIGITS) -> str:
    """A number to a few digits; a dash for NaN."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.{digits}g}"


def compact(value: float) -> str:
    """A number in at most eight characters, unless it is a million or more: 0.00102, 7.1e-4."""
    if not math.isfinite(value) or value == 0 or abs(value) >= 1e-3:
        return short(value, 3)
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _by_resolution(evaluation: Evaluation, shown: Sequence[Quantity]) -> Table:
    table = _table("size", "groups", *_headers(shown))
    for level in sorted(set(evaluation.resolutions)):
        measured = [quantity.resolutions.get(level) for quantity in shown]
        table.add_row(f"{level}x{level}", str(evaluation.resolutions.count(level)), *_cells(shown, measured))
    return table


def _by_group(evaluation: Evaluation, shown: Sequence[Quantity]) -> Table:
    table = _table("group", "size", *_headers(shown))
    previous = evaluation.resolutions[0]
    for group, level in enumerate(evaluation.resolutions):
        if level != previous:
            table.add_row()
        table.add_row(str(group), f"{level}x{level}", *_cells(shown, [quantity.groups[group] for quantity in shown]))
        previous = level
    return table


def _by_reader(evaluation: Evaluation) -> Table:
    found = {header: quantity for key, header in READERS.items() if (quantity := evaluation.quantity(key)) is not None}
    table = _table("group", "size", *found)
    table.add_row("all", "", *(compact(_value(quantity.total)) for quantity in found.values()))
    for group, level in enumerate(evaluation.resolutions):
        parts = [quantity.groups[group].value if quantity.groups else math.nan for quantity in found.values()]
        table.add_row(str(group), f"{level}x{level}", *map(compact, parts))
    return table


def _by_band(bands: Mapping[tuple[str, str], Mapping[int, Quantity]]) -> Table:
    table = _table(*map(str, next(iter(bands.values()))), left="noise")
    for (unit, variance), found in bands.items():
        totals = [_value(quantity.total) for quantity in found.values()]
        table.add_row(_noise_words(unit, variance), *map(compact, totals))
    return table


def _by_band_and_group(evaluation: Evaluation, bands: Mapping[int, Quantity]) -> Table:
    table = _table("group", "size", *map(str, bands))
    for group, level in enumerate(evaluation.resolutions):
        values = [quantity.groups[group].value for quantity in bands.values()]
        table.add_row(str(group), f"{level}x{level}", *map(compact, values))
    return table


def _noise_words(unit: str, variance: str) -> str:
    return f"{float(variance):g}{' σ_p²' if unit == 'prior_scale' else ''}"


def _value(measurement: Measurement | None) -> float:
    return math.nan if measurement is None else measurement.value


def _headers(shown: Sequence[Quantity]) -> Iterator[str]:
    for quantity in shown:
        yield COLUMNS[quantity.key]
        if quantity.key == _SHARE_AFTER:
            yield "share"


def _cells(shown: Sequence[Quantity], measured: Sequence[Measurement | None]) -> Iterator[str]:
    for quantity, measurement in zip(shown, measured, strict=True):
        value = _value(measurement)
        yield compact(value)
        if quantity.key == _SHARE_AFTER:
            total = _value(quantity.total)
            yield f"{100 * value / total:.1f}" if total and math.isfinite(value / total) else short(math.nan)


def _quantiles(inputs: InputRates) -> Table:
    shown = [probability for probability in _SHOWN_QUANTILES if probability in inputs.quantiles]
    table = _table(*(f"{100 * float(probability):g}%" for probability in shown), left="share")
    table.add_row(f"ε, {inputs.unit}", *(short(inputs.quantiles[probability]) for probability in shown))
    return table


def _nearest(inputs: InputRates) -> Table:
    table = _table("image", f"KL, {inputs.unit}")
    for number, rate in inputs.nearest_collapse:
        table.add_row(str(number), short(rate))
    return table
