"""A run that starts from weights draws and measures them before it changes them: the left half of every comparison."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from short_runs import LAST, short_run

from vdvae_lr.files.run_folder import read_log


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
    assert bounds(second)[0] == (0, pytest.approx(bounds(first)[-1][1]))


def bounds(run: Path) -> list[tuple[int, float]]:
    return [
        (line["iteration"], line["negative_elbo_nats_per_dim"]) for line in read_log(run)[0] if line["kind"] == "eval"
    ]


def test_every_later_evaluation_states_the_price_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = short_run(tmp_path / "first")
    capsys.readouterr()
    second = short_run(tmp_path / "second", pretrained=str(first), lr=1e-2)
    said = re.findall(
        r"since step (\d+): -ELBO (\S+) \(.*%\) = rate (\S+) and distortion (\S+)", capsys.readouterr().out
    )
    (_, start), *later = bounds(second)
    assert [step for step, *_ in said] == ["0"] * len(later) and later
    for (_, bound, rate, distortion), (_, now) in zip(said, later, strict=True):
        assert float(bound) == pytest.approx(now - start, abs=1e-4)
        assert float(bound) == pytest.approx(float(rate) + float(distortion), abs=2e-4)


def test_a_run_from_scratch_has_nothing_to_show_first(tmp_path: Path) -> None:
    run = short_run(tmp_path)
    assert "step-00000000.png" not in pictures(run) and 0 not in dict(bounds(run))
