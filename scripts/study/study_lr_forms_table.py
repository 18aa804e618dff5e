"""Write the tables of docs/study_lr_forms.md from the results of `study_lr_forms.py`.

A table stands between two comments of the document, `<!-- results: DATA STAGE -->` and `<!-- end of results -->`. STAGE
is `screen` (seed 0) or `confirm` (means over seeds, for rows with several seeds).
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdvae_lr.evaluation.document import current_key
from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.whole_file import write_whole

DOCUMENT = ROOT / "docs" / "study_lr_forms.md"
PLAIN = "plain"
INFORMATION = "information_from_samples"
BLOCK = re.compile(r"(<!-- results: (\w+) (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A column of the tables: one measurement."""

    key: str
    title: str
    decimals: int
    errors_of_one_seed: bool = True
    """Whether to show the error over images for one seed: it must say something about differences between rows."""
    sign: int = 1


COLUMNS = (
    Column("negative_elbo", "bound", 4, False),
    Column("rate", "rate", 4, False),
    Column("distortion", "distortion", 4, False),
    Column("information_from_samples", "eq. 5", 4),
    Column("lr_information", "recovered, sample", 4, False, sign=-1),
    Column("recovered_mean_image", "recovered, mean", 4, False),
    Column("active_latents", "active, %", 1),
    Column("prior_scale", "mean σ_p", 4, False),
    Column("noise_rms_raw_0.3", "response, raw", 4),
    Column("noise_rms_prior_scale_0.3", "response, σ_p", 4),
)


@dataclass(frozen=True)
class Result:
    """One row with one seed."""

    data: str
    name: str
    seed: int
    settings: Mapping[str, Any]
    measured: Mapping[str, tuple[float, float | None]]
    """Value and standard error over images, under the keys of comparison.json; KEY/3: that of latent group 3."""


@dataclass(frozen=True)
class Cell:
    """A mean over seeds with its standard error; or the value of one seed with its standard error over images."""

    value: float
    error: float | None
    seeds: int


def read_results(folder: Path) -> list[Result]:
    """All results below `folder`, in the order of data set, row and seed."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = content["measured"].items()
        measured = {current_key(key): (cell["value"], cell["standard_error"]) for key, cell in cells}
        for key, groups in content.get("by_group", {}).items():
            measured |= {f"{key}/{group}": (value, None) for group, value in enumerate(groups) if value is not None}
        found.append(Result(content["data"], content["name"], content["seed"], content["settings"], measured))
    return found


def over_seeds(values: Sequence[float]) -> Cell:
    """The mean over seeds and its standard error; one seed has no error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Cell(statistics.fmean(values), error, len(values))


def cell(row: Sequence[Result], key: str) -> Cell:
    """One measurement of a row over its seeds."""
    if len(row) == 1:
        return Cell(*row[0].measured[key], 1)
    return over_seeds([result.measured[key][0] for result in row])


def bound_against_plain(row: Sequence[Result], plain: Sequence[Result]) -> Cell:
    """By how many percent the bound is worse than that of plain fine-tuning with the same seed."""
    reference = {result.seed: result.measured["negative_elbo"][0] for result in plain}
    ratios = [
        result.measured["negative_elbo"][0] / reference[result.seed] for result in row if result.seed in reference
    ]
    return over_seeds([100 * (ratio - 1) for ratio in ratios])


def rows_of(results: Sequence[Result], data: str, stage: str) -> dict[str, list[Result]]:
    """The results of a data set by row, plain first. `screen`: seed 0; `confirm`: rows with several seeds."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        if result.data == data:
            rows.setdefault(result.name, []).append(result)
    if stage == "screen":
        rows = {name: [result for result in row if result.seed == 0] for name, row in rows.items()}
        rows = {name: row for name, row in rows.items() if row}
    else:
        rows = {name: row for name, row in rows.items() if len(row) > 1} or rows
    return dict(sorted(rows.items(), key=lambda item: (item[0] != PLAIN, -cell(item[1], INFORMATION).value)))


def markdown_table(
    rows: Mapping[str, Sequence[Result]], columns: Sequence[Column] = COLUMNS, reference: str = PLAIN
) -> str:
    """One line for each row, in their order; bounds are compared with that of the row `reference`.

    What a row did not measure is left empty.
    """
    several = any(len(row) > 1 for row in rows.values())
    heads = [
        "row",
        f"bound against {reference.replace('-', ' ')}, %",
        *(column.title for column in columns),
        *(["seeds"] if several else []),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        against = "" if name == reference else _text(bound_against_plain(row, rows[reference]), 2, signed=True)
        cells = [name.replace("-", " "), against, *(_text_of(column, row) for column in columns)]
        lines.append("| " + " | ".join([*cells, *([str(len(row))] if several else [])]) + " |")
    return "\n".join(lines) + "\n"


def _text_of(column: Column, row: Sequence[Result]) -> str:
    if any(column.key not in result.measured for result in row):
        return ""
    found = cell(row, column.key)
    stated = found.seeds > 1 or column.errors_of_one_seed
    return _text(Cell(column.sign * found.value, found.error if stated else None, found.seeds), column.decimals)


def _text(found: Cell, decimals: int, *, signed: bool = False) -> str:
    value = f"{found.value:{'+' if signed else ''}.{decimals}f}"
    return value if found.error is None else f"{value} ± {found.error:.{decimals}f}"


def filled(document: str, results: Sequence[Result]) -> str:
    """The document with new tables."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{markdown_table(rows_of(results, match[2], match[3]))}\n{match[4]}"

    return BLOCK.sub(fill, document)


def write_document(folder: Path) -> None:
    """Write the document's tables from the results below `folder`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    write_whole(DOCUMENT, filled(text, read_results(folder)).encode())
