"""A short real run for tests that read runs. It is trained once, then copied and changed."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training_runs import ALONE, tiny_settings, write_images

from vdvae_lr.training.loop import train

LAST = 6  # number of iterations of the run
_SETTINGS = {"alpha_T": 0.5, "lr_form": "nll", "iters_per_eval": 3, "iters_per_images": 3, "iters_per_save": 3}
_QUICK = {"lr": 0.03, "warmup_iters": 0, "ema_rate": 0.3}  # else the learning rate would be zero


def short_run(folder: Path, **changes: Any) -> Path:
    """The folder of a finished run with LR: two bounds, two pictures, two checkpoints."""
    images = write_images(folder / "images", 80)  # enough for several held-out images, so that there is an error
    places = {"data_root": str(images), "save_dir": str(folder), "desc": "run"}
    assert train(tiny_settings(**_SETTINGS | _QUICK | {"iters": LAST} | places | changes), ALONE) == 0
    return folder / "run"


def copied(run: Path, folder: Path) -> Path:
    """A copy of the run, which a test may change."""
    return shutil.copytree(run, folder / run.name)


def checkpoint_of(run: Path, iteration: int = LAST) -> Path:
    return run / "checkpoints" / f"step-{iteration:08d}"


def records_of(run: Path, kind: str) -> list[dict[str, Any]]:
    """The records of the log of one kind."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def change_settings(run: Path, **changes: Any) -> None:
    path = run / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_log(run: Path, records: Iterable[Mapping[str, Any]]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
