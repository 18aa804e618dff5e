"""The model card of a run leads with what changed against other runs, as the report says it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from reported_folders import evaluated_folder, evaluation
from short_runs import LAST, copied, short_run

from vdvae_lr.cli.main import main
from vdvae_lr.evaluation.document import write_evaluation
from vdvae_lr.evaluation.quantities import Measurement, Quantity


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run with an evaluation of its last checkpoint."""
    folder = copied(trained, tmp_path)
    measured(folder / "evaluation", 1.6, iteration=LAST)
    return folder


def measured(folder: Path, bound: float, **changes: object) -> Path:
    images = [bound * (1 + image / 100) for image in range(50)]
    quantity = Quantity("negative_elbo", "bound", "nats/dim", Measurement(bound, 0.2, 50), by_image=(*images,))
    write_evaluation(replace(evaluation("start", **changes), quantities=(quantity,)), folder / "evaluation.json")
    return folder


def test_the_card_leads_with_the_verdict(run: Path, tmp_path: Path) -> None:
    start = measured(tmp_path / "start", 1.5)
    assert main(["export", str(run), str(tmp_path / "weights"), "--against", f"before={start}"]) == 0
    card = (tmp_path / "weights" / "README.md").read_text()
    changed, loading = card.index("\n## What changed\n"), card.index("\n## How to load it\n")
    lead = card[changed:loading]
    assert f"- {run.name} against before: the bound is 6.7% worse.\n" in lead
    assert "| **+6.7%** (+0.1000 ± 0.0021, clear) |" in lead


def test_without_a_comparison_the_export_says_how_to_get_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), str(tmp_path / "weights")]) == 0
    assert "The card does not say what LR changed" in capsys.readouterr().out
    assert "## What changed" not in (tmp_path / "weights" / "README.md").read_text()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run, _: (run / "evaluation" / "evaluation.json").unlink(), "has no evaluation; run `vdvae-lr evaluate"),
        (lambda run, _: measured(run / "evaluation", 1.6, iteration=LAST - 1), "is not of the checkpoint of iteration"),
        (lambda _, start: measured(start, 1.5, seed=7), "are not alike, so nothing can be compared"),
        (lambda _, start: (start / "evaluation.json").unlink(), "is neither a run nor an evaluation"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(
    run: Path, tmp_path: Path, spoil: Callable[[Path, Path], object], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = measured(tmp_path / "start", 1.5)
    spoil(run, start)
    assert main(["export", str(run), str(tmp_path / "weights"), "--against", str(start)]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()


def test_weights_of_no_run_and_the_published_format_have_no_comparison(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = evaluated_folder(tmp_path / "start")
    assert main(["export", "fashion", str(tmp_path / "one"), "--against", str(start)]) == 2
    assert "fashion is no training run" in capsys.readouterr().err
    words = ["export", str(run), str(tmp_path / "two.th"), "--format", "published", "--against", str(start)]
    assert main(words) == 2
    assert "the published format has none" in capsys.readouterr().err
