"""A run that starts from weights draws what they make before it changes them: the left half of every comparison."""

from pathlib import Path

import numpy as np
from PIL import Image
from short_runs import LAST, short_run


def pictures(run: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {path.name: np.asarray(Image.open(path)) for path in sorted((run / "images").iterdir())}


def test_first_picture_is_of_the_weights_it_starts_from(tmp_path: Path) -> None:
    first = short_run(tmp_path / "first")
    second = short_run(tmp_path / "second", pretrained=str(first), lr=1e-2)
    ended, before, after = (
        pictures(run)[f"step-{iteration:08d}.png"] for run, iteration in ((first, LAST), (second, 0), (second, LAST))
    )
    assert np.array_equal(before, ended)
    assert not np.array_equal(before, after)


def test_a_run_from_scratch_has_nothing_to_show_first(tmp_path: Path) -> None:
    assert "step-00000000.png" not in pictures(short_run(tmp_path))
