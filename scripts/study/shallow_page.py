"""Write the tables and plots of docs/shallow_study.md from the results of `shallow.py`.

A table stands between two comments of the page, `<!-- shallow: PROTOCOL TABLE -->` and `<!-- end of shallow -->`.
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
_BLOCK = re.compile(r"(<!-- shallow: (\w+) (\d) -->\n).*?(<!-- end of shallow -->)", re.DOTALL)
_HEADS = (
    "row",
    "AU",
    "paper",
    "KL",
    "paper",
    "MI, 50",
    "paper",
    "MI, all",
    "eq. 5",
    "mean image",
    "bound",
    "distortion",
    "minutes",
)
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
    """One measurement: the share of active units from 0 to 1, everything else in nats an image."""
    measured: float = result["measured"][key]["value"]
    return measured / 100 if key == "active_latents" else measured * result["dimensions"]


def _cell(results: Sequence[Result], key: str, decimals: int = 2) -> str:
    values = [value(result, key) for result in results if key in result["measured"]]
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def table_lines(results: Mapping[str, Sequence[Result]], table: int) -> list[str]:
    """The table with the paper's numbers, and the rank correlations below it."""
    if not results:
        return ["No row of this table has a result yet."]
    lines = ["| " + " | ".join(_HEADS) + " |", "|---" * len(_HEADS) + "|"]
    rows = [row for row in rows_of(table) if row.preset in results]
    for row in rows:
        found, (units, kl, information) = results[row.preset], row.paper[table]
        minutes = statistics.fmean(sum(result["seconds"]) for result in found) / 60
        cells = [
            *(row.title, _cell(found, "active_latents"), f"{units:.2f}", _cell(found, "rate"), f"{kl:.2f}"),
            *(_cell(found, "mutual_information"), f"{information:.2f}", _cell(found, "mutual_information_set")),
            *(_cell(found, "information_from_samples"), _cell(found, "recovered_mean_image")),
            _cell(found, "negative_elbo", 1),
            *(_cell(found, "distortion", 1), f"{minutes:.0f}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", _correlations(results, rows, table)]


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
        number = int(match[3])
        lines = table_lines(read_results(results, match[2], number), number)
        return match[1] + "\n" + "\n".join(lines) + "\n\n" + match[4]

    return _BLOCK.sub(table, page)


def draw_curves(results: Mapping[str, Sequence[Result]], table: int, target: Path) -> None:
    """Active units and KL of held-out images over the iterations of training, seed by seed."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    titles = {row.preset: row.title for row in rows_of(table)}
    for axes, (key, title) in zip(
        figure.subplots(1, 2),
        (("active_latents_share", "share of active units"), ("rate_nats_per_dim", "KL, nats an image")),
        strict=True,
    ):
        for number, (preset, found) in enumerate(results.items()):
            for result in found:
                points = [(line["iteration"], line[key]) for line in result["curve"] if line.get(key) is not None]
                factor = 1 if key == "active_latents_share" else result["dimensions"]
                label = titles[preset] if result is found[0] else None
                x, y = zip(*points, strict=True) if points else ((), ())
                axes.plot(x, [factor * each for each in y], color=f"C{number % 10}", label=label)
        axes.set_xlabel("iterations")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
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
