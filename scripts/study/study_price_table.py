"""Write the tables of docs/study_price.md from the results of `study_price.py`.

A table stands between two comments of the document, `<!-- results: DATA STAGE -->` and `<!-- end of results -->`.
`<!-- groups: DATA STAGE -->` begins one of the response to noise in each latent group alone.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from study_lr_forms_table import BLOCK, PLAIN, Column, Result, markdown_table
from study_price_rows import LONGER, STAGES

from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.whole_file import write_whole

DOCUMENT = ROOT / "docs" / "study_price.md"
COLUMNS = (
    Column("negative_elbo", "bound", 4, False),
    Column("rate", "rate", 4, False),
    Column("distortion", "distortion", 4, False),
    Column("information_from_samples", "eq. 5", 4),
    Column("information_from_samples_fresh", "eq. 5, fresh reader", 4),
    Column("active_latents", "active, %", 1),
    Column("active_latents_relative", "active, σ_p, %", 1),
    Column("noise_rms_raw_0.3", "response, raw", 4),
    Column("noise_rms_prior_scale_0.3", "response, σ_p", 4),
    Column("noise_band_4_prior_scale_0.3", "of it at 4×4", 4, False),
)
_RESPONSE = "noise_rms_prior_scale_0.3"
_GROUPS_BLOCK = re.compile(BLOCK.pattern.replace("results", "groups", 1), re.DOTALL)
_REFERENCES = {"longer": f"{PLAIN}-times{LONGER}", "tuned": "tuned-plain", "collapsed": "reopened-plain"}
"""The row without LR, by stage, where it is not that of the grid."""


def rows_of_stage(results: Sequence[Result], data: str, stage: str) -> dict[str, list[Result]]:
    """The results of a stage's rows by title, in the stage's order; the one without LR that they are compared with
    comes first. The stage "seeds" has all seeds, the others seed 0.
    """
    titles = [_REFERENCES.get(stage, PLAIN), *(row.title for row in STAGES[stage])]
    rows: dict[str, list[Result]] = {}
    for title in dict.fromkeys(titles):
        found = [result for result in results if (result.data, result.name) == (data, title)]
        found = [result for result in found if result.seed == 0 or stage == "seeds"]
        if found:
            rows[title] = found
    return rows


def _group_columns(rows: Mapping[str, Sequence[Result]]) -> list[Column]:
    """A column for each latent group whose response to noise in it alone was measured."""
    keys = {key for row in rows.values() for result in row for key in result.measured}
    groups = sorted(int(key.rpartition("/")[2]) for key in keys if key.startswith(f"{_RESPONSE}/"))
    return [Column(f"{_RESPONSE}/{group}", f"group {group}", 4, False) for group in groups]


def filled(document: str, results: Sequence[Result]) -> str:
    """The document with new tables."""

    def table(match: re.Match[str], *, by_group: bool) -> str:
        rows = rows_of_stage(results, match[2], match[3])
        columns = _group_columns(rows) if by_group else COLUMNS
        return f"{match[1]}\n{markdown_table(rows, columns, next(iter(rows)))}\n{match[4]}"

    document = BLOCK.sub(partial(table, by_group=False), document)
    return _GROUPS_BLOCK.sub(partial(table, by_group=True), document)


def write_document(results: Sequence[Result]) -> None:
    """Write the document's tables."""
    write_whole(DOCUMENT, filled(DOCUMENT.read_text(encoding="utf-8"), results).encode())
