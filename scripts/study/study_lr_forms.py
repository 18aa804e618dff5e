"""Run the study behind the defaults of LR: fine-tune, measure, write tables (docs/study_lr_forms.md).

    python scripts/study/study_lr_forms.py screen --data_root FASHION   all rows, one seed
    python scripts/study/study_lr_forms.py photos --photos PHOTOS.npz   images and weights of the colour model
    python scripts/study/study_lr_forms.py confirm --data_root FASHION  the best rows and plain, three seeds
    python scripts/study/study_lr_forms.py confirm --data photos        the same on the colour model
    python scripts/study/study_lr_forms.py longer --data_root FASHION   some rows, four times as long, one seed
    python scripts/study/study_lr_forms.py table                        tables and figure of the document

A row is one `train.py` and one `vdvae-lr compare`, each in a new process. The result of a row is one JSON file. A row
that has a result is not run again, and a stopped run continues. Several of these commands may share one --work folder:
only one of them runs each row. --jobs runs several rows at a time, each on OMP_NUM_THREADS threads (1 if that is not
set). --iters and --examples make a row smaller.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from row_jobs import Job, run_jobs, timed
from study_lr_forms_figure import FIGURE, draw
from study_lr_forms_table import read_results, write_document

from vdvae_lr.cli.compare import COMPARISON_NAME
from vdvae_lr.evaluation.document import read_evaluations
from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.paths import path_of

PHOTOS_PRESET = "docs/studies/lr_forms/photos16.toml"
# Neighbouring images come from one photograph, so randomly drawn parts would share photographs.
PHOTOS_PARTS = {"train": (0, 7700), "valid": (7700, 8200), "test": (8200, 9200)}
PHOTOS_SCHEDULE = (
    "--iters 3000 --n_batch 32 --global_batch 32 --lr 0.001 --lr_final_share 0.412 --warmup_iters 200 --ema_rate 0.998 "
    "--eval_examples 500 --iters_per_eval 1000 --iters_per_save 500 --iters_per_images 3000"
)
FIRST_SEED, CONFIRMED_SEEDS = (0,), (0, 1, 2)
ITERS, LONGER_ITERS = 300, 1200


@dataclass(frozen=True)
class Row:
    """One way to fine-tune; the fields are settings of train.py."""

    lr_form: str
    lr_target: str
    lr_image: str
    lr_latents: str
    lr_reduction: str
    alpha_T: float

    @property
    def name(self) -> str:
        """The name of the row in tables and file names."""
        if self.alpha_T == 0:
            return "plain"
        parts = (self.lr_form, self.lr_target, self.lr_image, self.lr_latents, self.lr_reduction)
        return "-".join((*parts, f"{self.alpha_T:g}"))


def _row(words: str) -> Row:
    form, target, image, latents, reduction, alpha = words.split()
    return Row(form, target, image, latents, reduction, float(alpha))


ROWS = tuple(
    _row(words)
    for words in (
        "information constant sample posterior sum 0",
        "information constant sample posterior sum 1",
        "information constant sample prior sum 1",
        "information constant mean posterior sum 1",
        "raw live mean posterior mean 1",
        "information constant sample prior sum 0.3",
        "information constant sample prior sum 0.1",
        "information constant sample posterior sum 3",
        "raw live mean posterior sum 1",
        "information live sample posterior sum 1",
        "information live sample posterior sum 0.3",
        "nll live sample posterior sum 1",
        "standardised constant sample posterior mean 1",
        "information constant mean prior sum 1",
        "standardised live mean posterior mean 1",
        "standardised constant sample posterior sum 0.1",
        "raw live mean posterior sum 0.1",
        "raw constant sample posterior mean 1",
        "nll live sample posterior sum 0.1",
        "information live mean posterior sum 1",
        "information constant sample posterior sum 0.1",
        "information constant sample posterior sum 0.3",
        "information constant mean posterior sum 0.1",
        "information constant sample prior sum 3",
        "information constant mean prior sum 0.1",
    )
)
"""All rows, the most instructive first. `nll` with a constant target has the gradients of `information`: left out."""

CONFIRMED = (
    "plain",
    "information-constant-sample-prior-sum-0.3",
    "information-constant-sample-posterior-sum-1",
    "information-constant-mean-posterior-sum-1",
    "information-live-sample-posterior-sum-1",
    "information-constant-sample-posterior-sum-0.1",
)
"""Rows for three seeds. Within 1% of the bound: the most information for each kind of latents, and the strongest noise
response. The last two were added after the first readings.
"""

LONGER = (
    "plain",
    "information-constant-sample-posterior-sum-1",
    "information-live-sample-posterior-sum-1",
    "information-live-sample-posterior-sum-0.3",
    "information-constant-sample-posterior-sum-0.3",
)
"""Rows for longer runs: plain, and the default and its live target, with two values of α. A live target gains for both
encoders, but at α 1 it does not train the prior (docs/method.md).
"""


@dataclass(frozen=True)
class Study:
    """How the rows of a stage start, how long they are, and where their files are."""

    data: str
    """fashion or photos, with _longer for longer rows; also the name of the folder with the results."""
    model: tuple[str, ...]
    """Arguments for train.py: settings and weights of the model."""
    dataset: tuple[str, ...]
    """Arguments for both commands: the data set."""
    work: Path
    """Folder of runs, logs and locks."""
    results: Path
    """Folder of results: one folder for each data set, with one JSON file for each row and seed."""
    iters: int
    examples: int

    def label(self, row: Row, seed: int) -> str:
        """The name of the row's run, log and comparison in `work`."""
        return f"{self.data}-{row.name}-seed{seed}"

    def result(self, row: Row, seed: int) -> Path:
        """The file with the result of a row."""
        return self.results / self.data / f"{row.name}-seed{seed}.json"


def training_words(study: Study, row: Row, seed: int) -> list[str]:
    """Arguments of `train.py` for a row."""
    settings = [word for name, value in dataclasses.asdict(row).items() for word in (f"--{name}", str(value))]
    length = ["--iters", str(study.iters), "--seed", str(seed), "--num_workers", "0"]
    quiet = ["--eval_examples", "16", "--iters_per_eval", "100000", "--iters_per_images", "100000"]
    place = ["--save_dir", str(study.work / "runs"), "--desc", study.label(row, seed)]
    return [*study.model, *study.dataset, *settings, *length, *quiet, *place]


def measuring_words(study: Study, row: Row, seed: int) -> list[str]:
    """Arguments of `vdvae-lr` for a row. All rows are measured with the same images and noise, for any seed."""
    run = study.work / "runs" / study.label(row, seed)
    what = ["--examples", str(study.examples), "--images", "0", "--split", "test", "--seed", "0"]
    return ["compare", f"{row.name}={run}", *study.dataset, *what, "--out", str(_comparison(study, row, seed))]


def _comparison(study: Study, row: Row, seed: int) -> Path:
    return study.work / "comparisons" / study.label(row, seed)


def run_rows(study: Study, todo: Iterable[tuple[Row, int]], jobs: int) -> int:
    """Run the rows that have no result yet, `jobs` at a time; return how many failed."""
    pairs = list(todo)
    other_size = [not _same_size(study, study.result(*pair)) for pair in pairs if study.result(*pair).exists()]
    return sum(other_size) + run_jobs([_job(study, *pair) for pair in pairs], study.work, jobs)


def _job(study: Study, row: Row, seed: int) -> Job:
    commands = (
        ["train.py", *training_words(study, row, seed)],
        ["-m", "vdvae_lr", *measuring_words(study, row, seed)],
    )
    label = study.label(row, seed)
    return Job(label, study.result(row, seed), commands, lambda: _result(study, row, seed))


def _same_size(study: Study, path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    same = (found["iters"], found["examples"]) == (study.iters, study.examples)
    if not same:
        print(f"{path} was made with other --iters or --examples; choose another --results, or remove it.", flush=True)
    return same


def _result(study: Study, row: Row, seed: int) -> dict[str, Any]:
    compared = read_evaluations(_comparison(study, row, seed) / COMPARISON_NAME)[row.name]
    measured = {
        quantity.key: {"value": quantity.total.value, "standard_error": quantity.total.standard_error}
        for quantity in compared.quantities
        if quantity.total is not None
    }
    return {
        "name": row.name,
        "data": study.data,
        "seed": seed,
        "settings": dataclasses.asdict(row),
        "iters": study.iters,
        "examples": compared.examples,
        "split": compared.split,
        "measured": measured,
    }


def prepare_photos(archive: Path, study: Study) -> None:
    """Write the photographs `train` (N, 32, 32, 3) of an archive as 16×16 PNGs; train a model on them from scratch."""
    with np.load(archive) as arrays:
        pixels = arrays["train"]
    folder = Path(study.dataset[-1])
    for part, (first, last) in PHOTOS_PARTS.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index in range(first, min(last, len(pixels))):
            small = Image.fromarray(pixels[index]).resize((16, 16), Image.Resampling.BOX)
            small.save(folder / part / f"{index:05d}.png")
    words = ["--hps", PHOTOS_PRESET, *study.dataset, *PHOTOS_SCHEDULE.split(), "--num_workers", "0"]
    (study.work / "logs").mkdir(parents=True, exist_ok=True)
    place = ["--save_dir", str(study.work / "runs"), "--desc", "photos16"]
    timed("photos16", [sys.executable, "train.py", *words, *place], study.work)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Compare the forms of Latent Reconstruction.")
    parser.add_argument("stage", choices=("screen", "photos", "confirm", "longer", "table"))
    parser.add_argument(
        "--data", choices=("fashion", "photos"), default="fashion", help="data set of the stages confirm and longer"
    )
    parser.add_argument("--data_root", type=path_of, help="folder of the images; for photos: of their PNGs")
    parser.add_argument("--photos", type=path_of, help="archive of 32×32 colour images under the key 'train'")
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="*", choices=names, metavar="ROW", help="rows to run (default: the stage's)")
    parser.add_argument("--seeds", nargs="*", type=int, help="seeds (default: 0, 1 and 2 for confirm, else 0)")
    parser.add_argument("--work", type=path_of, default=ROOT / "runs" / "study_lr_forms", help="for runs and logs")
    parser.add_argument("--results", type=path_of, default=ROOT / "docs" / "studies" / "lr_forms")
    parser.add_argument("--iters", type=int, help=f"iterations of a row (default: {ITERS}; {LONGER_ITERS} for longer)")
    parser.add_argument("--examples", type=int, default=1000, help="test images on which a row is measured")
    parser.add_argument("--jobs", type=int, default=1, help="number of rows that run at a time")
    given = parser.parse_args()
    if given.stage == "photos" and given.photos is None:
        parser.error("the stage photos needs --photos ARCHIVE.npz")
    return given


def study_of(given: argparse.Namespace) -> Study:
    """The study that the command line asks for."""
    work = given.work.resolve()
    if given.data == "fashion" and given.stage != "photos":
        data, name, default = "fashion", "fashion", ROOT / "data" / "fashion"
        model: tuple[str, ...] = ("--hps", "fashion")
    else:
        data, name, default = "photos", "folder", work / "photos16"
        model = ("--hps", PHOTOS_PRESET, "--pretrained", str(work / "runs" / "photos16"))
    dataset = ("--dataset", name, "--data_root", str((given.data_root or default).resolve()))
    longer = given.stage == "longer"
    iters = given.iters or (LONGER_ITERS if longer else ITERS)
    return Study(data + longer * "_longer", model, dataset, work, given.results.resolve(), iters, given.examples)


def main() -> int:
    """Run the stage that the command line names; return the exit status."""
    given = arguments()
    if given.stage == "table":
        write_document(given.results)
        draw(read_results(given.results), FIGURE)
        return 0
    study = study_of(given)
    if given.stage == "photos":
        prepare_photos(given.photos, study)
        return 0
    names = given.rows or {"screen": [row.name for row in ROWS], "confirm": CONFIRMED, "longer": LONGER}[given.stage]
    seeds = given.seeds or (CONFIRMED_SEEDS if given.stage == "confirm" else FIRST_SEED)
    chosen = [row for row in ROWS if row.name in names]
    return min(1, run_rows(study, [(row, seed) for seed in seeds for row in chosen], given.jobs))


if __name__ == "__main__":
    sys.exit(main())
