"""Every row of the table in docs/own_data.md: a file of that kind becomes the colours that it means, or is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from kinds_of_colour import COLOUR_KINDS
from kinds_of_files import FILE_KINDS
from made_images import SIDE, Colour

from vdvae_lr.datasets.decoding import UnreadableImageError, decode_image
from vdvae_lr.files.bundled import CHECKOUT_ROOT

CASES = {**COLOUR_KINDS, **FILE_KINDS}
EACH = [pytest.param(*case, id=f"{row}-{i}") for row, cases in CASES.items() for i, case in enumerate(cases)]


def table_rows() -> list[str]:
    page = (CHECKOUT_ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    section = page.partition("\n## What is done with each kind of file\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    return [row for row in rows if row != "kind of file"]


def test_the_table_and_the_cases_are_the_same() -> None:
    assert table_rows() == list(CASES)
    assert all(CASES.values())


@pytest.mark.parametrize(("content", "expected"), EACH)
def test_kind_of_file(tmp_path: Path, content: bytes, expected: Colour | np.ndarray | str) -> None:
    path = tmp_path / "picture.bmp"
    path.write_bytes(content)
    if isinstance(expected, str):
        with pytest.raises(UnreadableImageError, match=expected):
            decode_image(path, SIDE, 3)
        return
    wanted = np.asarray(expected)
    size = SIDE if wanted.ndim < 2 else len(wanted)
    wanted = wanted[..., None] if wanted.ndim in (0, 2) else wanted
    computed = isinstance(expected, list)  # by this test's own formulas, in floating point
    rounding = 4 if content.startswith(b"\xff\xd8") else 2 if computed else 0  # JPEG loses a little
    decoded = decode_image(path, size, 3).astype(int)
    assert np.abs(decoded - wanted).max() <= rounding
