"""Run the study of what LR buys and what it costs: train small models to equilibrium and measure them.

    python scripts/study/study_price.py data --fashion FASHION --photos PHOTOS.npz    the small images
    python scripts/study/study_price.py run --jobs 2                                 all stages on 8×8 Fashion-MNIST
    python scripts/study/study_price.py run --data photos16 --rows plain constant-1  two rows on photographs
    python scripts/study/study_price.py table                                        tables and figures of the document

A row is one `train.py` and one `vdvae-lr evaluate`. Its result is one JSON file. A row that has one is not run again,
and a stopped run continues. Several of these commands may share one --work folder: only one of them runs each row.
--jobs runs several rows at a time, each on OMP_NUM_THREADS threads (1 if that is not set).
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from row_jobs import Job, measured, run_jobs
from study_lr_forms_table import read_results
from study_price_data import DATA, prepare
from study_price_figure import CURVES_FIGURE, PRICE_FIGURE, draw_curves, draw_price
from study_price_rows import STAGES, Row
from study_price_table import write_document

from vdvae_lr.evaluation.document import EVALUATION_NAME
from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.paths import path_of
from vdvae_lr.files.presets import read_presets

RESULTS = ROOT / "docs" / "studies" / "price"
EXAMPLES = 1000
READER_ITERATIONS = 500
PRESETS = {
    "fashion8": "fashion8",
    "fashion16": "fashion8,side16",
    "photos8": "fashion8,photos",
    "photos16": "fashion8,side16,photos",
}
_LEFT_OUT = "--mixture_batch 0 --mixture_images 0 --importance_images 0 --gap_images 0 --jacobian_images 0"
_CURVE = ("kind", "iteration", "rate_nats_per_dim", "distortion_nats_per_dim", "latent_reconstruction")


def preset_of(data: str) -> str:
    """Settings of the model of these images."""
    return ",".join(f"docs/studies/price/{name}.toml" for name in PRESETS[data].split(","))


@dataclass(frozen=True)
class Study:
    """The rows of one data set."""

    data: str
    work: Path
    """Folder of images, runs, logs and locks."""
    results: Path

    def run(self, label: str) -> Path:
        """The folder of a row's run."""
        return self.work / "runs" / self.data / label

    def job(self, row: Row) -> Job:
        """What a row runs."""
        images = ["--data_root", str(self.work / self.data)]
        iters = round(row.lengths * read_presets(preset_of(self.data))["iters"])
        words = row.words.format(preset=preset_of(self.data))
        train = ["train.py", *([] if "--hps" in words else ["--hps", preset_of(self.data)]), *words.split(), *images]
        train += ["--iters", str(iters), "--seed", str(row.seed), "--desc", row.label]
        train += ["--save_dir", str(self.run(row.label).parent)]
        start = str(self.run(f"{row.start}-seed{row.seed}")) if row.start else "none"
        train += ["--pretrained", start]
        run = self.run(row.label)
        measure = ["-m", "vdvae_lr", "evaluate", str(run), *images, "--examples", str(EXAMPLES), "--images", "0"]
        measure += ["--before", start, "--reader_iterations", str(READER_ITERATIONS)]
        measure += ["--out", str(run / "evaluation"), *_LEFT_OUT.split()]
        label = f"{self.data}-{row.label}"
        result = self.results / self.data / f"{row.label}.json"
        return Job(label, result, (train, measure), lambda: self._read(row, iters))

    def _read(self, row: Row, iters: int) -> dict[str, Any]:
        run = self.run(row.label)
        return {
            "name": row.title,
            "data": self.data,
            "seed": row.seed,
            "settings": {"words": row.words, "start": row.start},
            "iters": iters,
            **measured(run / "evaluation" / EVALUATION_NAME),
            "curve": _curve(run / "log.jsonl"),
        }


def _curve(log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [{key: line[key] for key in _CURVE if key in line} for line in lines if "rate_nats_per_dim" in line]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("data", "run", "table"))
    parser.add_argument("--fashion", type=path_of, help="folder with the files of Fashion-MNIST")
    parser.add_argument("--photos", type=path_of, help="archive of 32×32 colour images under the key 'train'")
    parser.add_argument("--data", choices=DATA, default="fashion8", help="images and model (default: fashion8)")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="default: all of them")
    parser.add_argument("--rows", nargs="*", help="only the rows with these names")
    parser.add_argument("--work", type=path_of, default=ROOT / "runs" / "study_price", help="for images, runs and logs")
    parser.add_argument("--results", type=path_of, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=1, help="number of rows that run at a time (default: 1)")
    return parser.parse_args()


def main() -> int:
    """Do what the command line names; return the exit status."""
    given = arguments()
    work = given.work.resolve()
    if given.what == "data":
        prepare(given.fashion, given.photos, work)
        return 0
    if given.what == "table":
        results = read_results(given.results)
        write_document(results)
        draw_price(results, given.data, PRICE_FIGURE)
        draw_curves(given.results, given.data, preset_of(given.data), CURVES_FIGURE)
        return 0
    study = Study(given.data, work, given.results.resolve())
    rows = [row for stage in given.stages for row in STAGES[stage] if not given.rows or row.name in given.rows]
    return min(1, run_jobs([study.job(row) for row in rows], work, given.jobs))


if __name__ == "__main__":
    sys.exit(main())
