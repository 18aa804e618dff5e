"""`evaluate` on two real processes finds what one process finds, and one of them writes.

`tests/evaluation/test_sections.py` has all sections, in float64; these are the cheap ones.
"""

from pathlib import Path

import pytest
import tyro
from launching import launch
from saved_models import save_tiny

from vdvae_lr.cli.evaluate import EvaluateSettings, run
from vdvae_lr.evaluation.document import read_evaluation

CHEAP = (
    *("--examples", "9", "--mixture_batch", "0", "--mixture_images", "0", "--importance_images", "0"),
    *("--gap_images", "0", "--jacobian_images", "0", "--noise_images", "0"),
    *("--batch", "2", "--images", "2", "--device", "cpu"),
)


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    command = [save_tiny(tmp_path / "tiny"), *CHEAP, "--out"]
    run(tyro.cli(EvaluateSettings, args=[*command, str(tmp_path / "one")], use_underscores=True))
    command = ["-m", "vdvae_lr", "evaluate", *command, str(tmp_path / "two")]
    ended = launch("torchrun", tmp_path / "output", command, OMP_NUM_THREADS="1")
    assert [process.code for process in ended] == [0], ended
    assert ended[0].output.count("posterior passes") == 1
    found = [read_evaluation(tmp_path / name) for name in ("one", "two")]
    for one, two in zip(found[0].quantities, found[1].quantities, strict=True):
        assert one.key == two.key
        for ours, theirs in zip((*one.groups, one.total), (*two.groups, two.total), strict=True):
            if ours is not None and theirs is not None:
                assert theirs.value == pytest.approx(ours.value, rel=1e-3, abs=1e-5, nan_ok=True), one.key
                assert theirs.images == ours.images
