"""docs/logged_numbers.md names what a real run writes, all of it and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
from launching import log_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import ALONE, tiny_settings, write_images

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.training.loop import train
from vdvae_lr.training.metrics import console_line

PAGE = (CHECKOUT_ROOT / "docs" / "logged_numbers.md").read_text(encoding="utf-8")
IN_EVERY_LINE = {"kind", "iteration"}


def described(title: str) -> list[str]:
    """The first column of the table below a heading, in order."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no heading '{title}'"
    return re.findall(r"^\| `([^`]+)` \|", found[1], re.MULTILINE)


DESCRIBED = {"train": described("Lines of kind train"), "eval": described("Lines of kind eval and test")}
DESCRIBED["test"] = DESCRIBED["eval"]
CURVES = {f"{kind}/{name}" for kind, names in DESCRIBED.items() for name in names if not name.startswith("group_")}
DESCRIBED["images"] = described("Lines of kind images")


@pytest.fixture(scope="module")
def save_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished and tested run named "run"."""
    folder = tmp_path_factory.mktemp("logged")
    images = write_images(folder / "images", 120)  # enough for more than one validation image
    changes: dict[str, Any] = {"data_root": str(images), "save_dir": str(folder), "desc": "run"}
    for test_eval in (False, True):
        assert train(tiny_settings(test_eval=test_eval, **changes), ALONE) == 0
    return folder


@pytest.mark.parametrize("kind", DESCRIBED)
def test_each_number_of_the_log_is_described(save_dir: Path, kind: str) -> None:
    lines = [line for line in log_of(save_dir) if line["kind"] == kind]
    assert lines
    assert all(line.keys() - IN_EVERY_LINE == set(DESCRIBED[kind]) for line in lines)
    assert len(DESCRIBED[kind]) == len(set(DESCRIBED[kind]))


def test_no_other_kind_of_line_is_written(save_dir: Path) -> None:
    assert {line["kind"] for line in log_of(save_dir)} == set(DESCRIBED)


def test_curves_have_the_described_names(save_dir: Path) -> None:
    curves: set[str] = set()
    for path in sorted((save_dir / "run" / "tensorboard").iterdir()):
        curves |= set(EventAccumulator(str(path)).Reload().Tags()["scalars"])
    groups = {f"{kind}_group_rate/{group}" for kind in ("eval", "test") for group in ("00_1x1", "01_4x4", "02_8x8")}
    assert curves == CURVES | groups
    assert re.search(r"`eval_group_rate/\d\d_(\d+)x\1`", PAGE)


class StillClock:
    """Stands for the speed, which has no part in this."""

    def time_left(self, iteration: int) -> str:
        return "0:00:00"

    def images_per_second(self) -> float:
        return 1.0


def test_each_part_of_the_console_line_is_described() -> None:
    record = dict.fromkeys(DESCRIBED["train"], 1)
    shown = console_line(1, record, 10, StillClock()).split(" · ")  # type: ignore[arg-type]
    names = described("The console line")
    assert len(shown) == len(names)
    assert [part for part, name in zip(shown, names, strict=True) if name not in part] == []
