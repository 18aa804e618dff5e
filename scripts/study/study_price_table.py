"""Write the tables of docs/study_price.md from the results of `study_price.py`.

A table stands between two comments of the document, `<!-- results: DATA STAGE -->` and `<!-- end of results -->`.
"""

import re
from collections.abc import Sequence

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


_REFERENCES = {"longer": f"{PLAIN}-times{LONGER}", "tuned": "tuned-plain", "collapsed": "reopened-plain"}
"""The row without LR, by stage, where it is not that of the grid."""


def rows_of_stage(results: Sequence[Result], data: str, stage: str) -> dict[str, list[Result]]:
    """The results of a stage's rows by title, in the stage's order; the one without LR that they are compared with
    comes first.
    """
    titles = [_REFERENCES.get(stage, PLAIN), *(row.title for row in STAGES[stage])]
    rows: dict[str, list[Result]] = {}
    for title in dict.fromkeys(titles):
        found = [result for result in results if (result.data, result.name) == (data, title)]
        if found:
            rows[title] = found
    return rows


def filled(document: str, results: Sequence[Result]) -> str:
    """The document with new tables."""

    def fill(match: re.Match[str]) -> str:
        rows = rows_of_stage(results, match[2], match[3])
        return f"{match[1]}\n{markdown_table(rows, COLUMNS, next(iter(rows)))}\n{match[4]}"

    return BLOCK.sub(fill, document)


def write_document(results: Sequence[Result]) -> None:
    """Write the document's tables."""
    write_whole(DOCUMENT, filled(DOCUMENT.read_text(encoding="utf-8"), results).encode())
