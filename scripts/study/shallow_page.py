"""Write the tables and plots of docs/shallow_study.md from the results of `shallow.py`.

A table stands between two comments of the page, `<!-- shallow: PROTOCOL TABLE -->` and `<!-- end of shallow -->`.
`<!-- shallow: PROTOCOL TABLE decoder -->` begins one of what the same decoders do to the image, and
`<!-- shallow: PROTOCOL TABLE changed -->` one of rows with other settings (`--train`).
"""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import spearmanr
from shallow_rows import DATA_SETS, PROTOCOLS, Row, rows_of

from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.whole_file import replacing, write_whole

PAGE = ROOT / "docs" / "shallow_study.md"
_BLOCK = re.compile(r"(<!-- shallow: (\w+) (\d)( \w+)? -->\n).*?(<!-- end of shallow -->)", re.DOTALL)
_MEASURED = {
    "MI, all": "mutual_information_set",
    "eq. 5": "information_from_samples",
    "mean image": "recovered_mean_image",
    "bound": "negative_elbo",
    "distortion": "distortion",
}
"""What the paper's tables do not have, by its head in ours."""
_HEADS = ("row", "seeds", "AU", "paper", "KL", "paper", "MI, 50", "paper", *_MEASURED, "minutes")
_DECODER = {
    "importance bound": "importance_bound",
    "posterior gap": "posterior_gap",
    "R², mean image": "latent_r2_mean_image",
    "s_max": "largest_singular_value",
    "κ_min": "kappa_min",
    "L(z)": "local_bi_lipschitz",
    "‖J_E∘D − I‖": "composite_deviation",
    "least KL": "theorem_bound",
    "noise 1": "noise_rms_raw_1.0",
}
"""What is measured of the decoders, by its head."""
_UNITLESS = set(_DECODER.values()) - {"importance_bound", "posterior_gap", "theorem_bound"}
"""All else is in nats/dim in an evaluation."""
_DECIMALS = {"negative_elbo": 1, "distortion": 1, "importance_bound": 1, "kappa_min": 3}
"""Where a table has not two."""
_CHANGED_HEADS = ("row", "changed", "AU", "KL", "MI, 50", *_MEASURED)
Result = Mapping[str, Any]


def read_results(folder: Path, protocol: str, table: int) -> dict[str, list[Result]]:
    """The results of a table by preset, in the paper's order, one for each seed."""
    place = folder / protocol / DATA_SETS[table].name
    found: dict[str, list[Result]] = {}
    for row in rows_of(table):
        paths = sorted(place.glob(f"{row.preset}-seed*.json"))
        results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        if results:
            found[row.preset] = results
    return found


def value(result: Result, key: str) -> float:
    """One measurement: the share of active units from 0 to 1, nats of an image, or a number without a unit."""
    measured: float = result["measured"][key]["value"] if key in result["measured"] else result["by_group"][key][0]
    if key == "active_latents":
        return measured / 100
    return measured if key in _UNITLESS else measured * result["dimensions"]


def _cell(results: Sequence[Result], key: str) -> str:
    values = [value(result, key) for result in results if key in result["measured"] or key in result["by_group"]]
    if not values:
        return ""
    decimals = _DECIMALS.get(key, 2)
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]


def table_lines(results: Mapping[str, Sequence[Result]], table: int) -> list[str]:
    """The table with the paper's numbers, and the rank correlations below it."""
    rows = [row for row in rows_of(table) if row.preset in results]
    if not rows:
        return ["No row of this table has a result yet."]
    cells = []
    for row in rows:
        found, (units, kl, information) = results[row.preset], row.paper[table]
        minutes = statistics.fmean(sum(result["seconds"]) for result in found) / 60
        beside = (("active_latents", units), ("rate", kl), ("mutual_information", information))
        pairs = [cell for key, papers in beside for cell in (_cell(found, key), f"{papers:.2f}")]
        others = [_cell(found, key) for key in _MEASURED.values()]
        cells.append([row.title, str(len(found)), *pairs, *others, f"{minutes:.0f}"])
    return [*_lines(_HEADS, cells), "", _correlations(results, rows, table)]


def decoder_lines(results: Mapping[str, Sequence[Result]], table: int) -> list[str]:
    """The table of what the decoders do to the image, with the rate of the images whose least KL it has."""
    cells = []
    for row in rows_of(table):
        if found := results.get(row.preset):
            rates = [each["rate"] * result["dimensions"] for result in found for each in result["geometry"]]
            rate = f"{statistics.fmean(rates):.2f}" if rates else ""
            cells.append([row.title, *(_cell(found, key) for key in _DECODER.values()), rate])
    return _lines(("row", *_DECODER, "their KL"), cells) if cells else ["No row of this table has a result yet."]


def changed_lines(folder: Path, protocol: str, table: int) -> list[str]:
    """The table of rows that ran with other settings than the protocol's."""
    plain = read_results(folder, protocol, table)
    titles = {row.preset: row.title for row in rows_of(table)}
    cells = []
    for place in sorted(folder.glob(f"{protocol}-*")):
        for preset, found in read_results(folder, place.name, table).items():
            changes = (_changes(plain[preset][0], found[0]) if preset in plain else "") or place.name
            numbers = [_cell(found, key) for key in ("active_latents", "rate", "mutual_information")]
            cells.append([titles[preset], changes, *numbers, *(_cell(found, key) for key in _MEASURED.values())])
    return _lines(_CHANGED_HEADS, cells) if cells else ["No row has run with other settings yet."]


def _changes(plain: Result, changed: Result) -> str:
    """The settings in which a run differs from the protocol's, as options."""
    before, after = ({**result["settings"], "seed": 0} for result in (plain, changed))
    return " ".join(f"`--{key} {new}`" for key, new in after.items() if before.get(key) != new)


def _correlations(results: Mapping[str, Sequence[Result]], rows: Sequence[Row], table: int) -> str:
    if len(rows) < 3:
        return "Too few rows for rank correlations."
    words = []
    for place, (title, key) in enumerate((("AU", "active_latents"), ("KL", "rate"))):
        ours = [statistics.fmean(value(result, key) for result in results[row.preset]) for row in rows]
        papers = [row.paper[table][place] for row in rows]
        words.append(f"{title} {spearmanr(ours, papers).statistic:.2f}")
    return f"Spearman's rank correlation with the paper over {len(rows)} rows: {', '.join(words)}."


def filled(page: str, results: Path) -> str:
    """The page with new tables."""

    def table(match: re.Match[str]) -> str:
        protocol, number = match[2], int(match[3])
        found = read_results(results, protocol, number)
        lines = {
            None: lambda: table_lines(found, number),
            " decoder": lambda: decoder_lines(found, number),
            " changed": lambda: changed_lines(results, protocol, number),
        }[match[4]]()
        return match[1] + "\n" + "\n".join(lines) + "\n\n" + match[5]

    return _BLOCK.sub(table, page)


def draw_curves(results: Mapping[str, Sequence[Result]], table: int, target: Path) -> None:
    """Active units and KL of held-out images over the iterations of training, seed by seed."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    rows = rows_of(table)
    for axes, (key, title) in zip(
        figure.subplots(1, 2),
        (("active_latents_share", "share of active units"), ("rate_nats_per_dim", "KL, nats an image")),
        strict=True,
    ):
        settled: list[float] = []
        for number, row in enumerate(rows):  # of the table, so that a row keeps its colour when others come
            for result in results.get(row.preset, ()):
                points = [(line["iteration"], line[key]) for line in result["curve"] if line.get(key) is not None]
                factor = 1 if key == "active_latents_share" else result["dimensions"]
                label = row.title if result is results[row.preset][0] else None
                x, y = zip(*points, strict=True) if points else ((), ())
                style = {"color": f"C{number % 10}", "linestyle": "--" if number > 9 else "-"}
                curve = [factor * each for each in y]
                axes.plot(x, curve, label=label, **style)
                settled += curve[len(curve) // 2 :]
        axes.set_ylim(0, 1.1 * max(settled, default=1))  # what leaves it early would press the others flat
        axes.set_xlabel("iterations")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small")
    with replacing(target) as file:
        figure.savefig(file, format="png", dpi=80)


def write_page(results: Path) -> None:
    """Write the page's tables and plots from the results below a folder."""
    write_whole(PAGE, filled(PAGE.read_text(encoding="utf-8"), results).encode())
    for protocol in PROTOCOLS:
        for table in DATA_SETS:
            if found := read_results(results, protocol, table):
                name = f"shallow_{protocol}_{DATA_SETS[table].name}.png"
                draw_curves(found, table, ROOT / "docs" / "figures" / name)
