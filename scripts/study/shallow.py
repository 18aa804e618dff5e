"""Run the paper's shallow study: Tables 1 to 4 and Figures 3 to 5 (docs/shallow_study.md).

    python scripts/study/shallow.py table 1 --jobs 2                       every row of Table 1, the paper's protocol
    python scripts/study/shallow.py table 1 --protocol reduced --seeds 0 1 2 --rows vae lrvae_1
    python scripts/study/shallow.py figure 5 --protocol reduced            its rows that are missing, and the picture
    python scripts/study/shallow.py page                                   the tables and plots of the page

A row is one `train.py` and one `vdvae-lr evaluate`. Its result is one JSON file. A row that has one is not run again,
and a stopped run continues. Several of these commands may share one --work folder: only one of them runs each row.
--jobs runs several rows at a time, each on OMP_NUM_THREADS threads (1 if that is not set).
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from row_jobs import Job, measured, run_jobs
from shallow_figures import FIGURES, draw_figure, figure_path
from shallow_page import write_page
from shallow_rows import DATA_SETS, PROTOCOLS, Row, presets, rows_of

from vdvae_lr.evaluation.document import EVALUATION_NAME
from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.paths import path_of

RESULTS = ROOT / "docs" / "studies" / "shallow"
_EVALUATION = "--images 0 --mixture_batch 50 --mixture_images 128 --importance_images 64 --gap_images 0"
_EVALUATION += " --jacobian_images 8 --noise_units raw --noise_variances"
_EVALUATION += " 0 0.2 0.4 0.5 0.6 0.8 1 1.5 2 2.5 3"  # of Figures 3 and 5
_PLACES = ("save_dir", "desc", "data_root")
"""Settings that say where files are on this machine."""
_CURVE = ("iteration", "negative_elbo_nats_per_dim", "rate_nats_per_dim", "active_latents_share", "watched_examples")


@dataclass(frozen=True)
class Study:
    """The rows of one table."""

    table: int
    protocol: str
    work: Path
    """Folder of runs, logs and locks."""
    results: Path
    data_root: str = ""
    examples: int = 0
    """Test images to measure on; 0: all."""
    extra: tuple[str, ...] = ()
    """More settings of train.py."""

    @property
    def variant(self) -> str:
        """The protocol with everything that was changed: a changed row must not be taken for the protocol's."""
        words = [*self.extra, *(["examples", str(self.examples)] if self.examples else [])]
        return re.sub(r"[^\w.]+", "-", " ".join([self.protocol, *words]))

    def run(self, row: Row, seed: int) -> Path:
        """The folder of a row's run."""
        return self.work / "runs" / self.variant / DATA_SETS[self.table].name / f"{row.preset}-seed{seed}"

    def job(self, row: Row, seed: int) -> Job:
        """What a row runs."""
        data = DATA_SETS[self.table]
        run = self.run(row, seed)
        images = ["--data_root", self.data_root] if self.data_root else []
        train = ["train.py", "--hps", presets(row, self.table, self.protocol), "--seed", str(seed), *images]
        train += ["--save_dir", str(run.parent), "--desc", run.name, *self.extra]
        measure = ["-m", "vdvae_lr", "evaluate", str(run), *images, "--examples", str(self.examples)]
        measure += ["--out", str(run / "evaluation"), *_EVALUATION.split()]
        label = f"{self.variant}-{data.name}-{run.name}"
        result = self.results / self.variant / data.name / f"{run.name}.json"
        return Job(label, result, (train, measure), lambda: self._read(row, seed))

    def _read(self, row: Row, seed: int) -> dict[str, Any]:
        run, data = self.run(row, seed), DATA_SETS[self.table]
        settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        return {
            "name": row.preset,
            "data": data.name,
            "seed": seed,
            "dimensions": data.numbers,
            "settings": {key: setting for key, setting in settings.items() if key not in _PLACES},
            **measured(run / "evaluation" / EVALUATION_NAME),
            "curve": [{key: line.get(key) for key in _CURVE} for line in lines if line["kind"] == "eval"],
        }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "figure", "page"))
    parser.add_argument("number", type=int, nargs="?", help="of the table (1 to 4) or the figure (3 to 5)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="full", help="full: 100 epochs as in the paper")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--rows", nargs="*", help="only the rows of these presets, such as vae lrvae_1")
    parser.add_argument("--data_root", default="", help="folder of the data set, if it is not data/NAME")
    parser.add_argument("--examples", type=int, default=0, help="test images to measure on (default: all)")
    parser.add_argument("--train", default="", help="more settings of train.py, as one word in quotes")
    parser.add_argument("--work", type=path_of, default=ROOT / "runs" / "shallow", help="for runs and logs")
    parser.add_argument("--results", type=path_of, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=1, help="number of rows that run at a time (default: 1)")
    given = parser.parse_args()
    wanted = {"table": DATA_SETS, "figure": FIGURES, "page": {None: None}}[given.what]
    if given.number not in wanted:
        parser.error(f"{given.what} takes one of {', '.join(map(str, wanted))}, not {given.number}")
    if given.jobs < 1:
        parser.error(f"--jobs is {given.jobs}; it must be 1 or more")
    if given.what != "table" and given.rows:
        parser.error("--rows goes with a table; a figure has its own rows")
    if given.what == "table" and given.rows:
        known = [row.preset for row in rows_of(given.number)]
        if unknown := sorted(set(given.rows) - set(known)):
            parser.error(f"table {given.number} has no row {unknown[0]}; its rows are {', '.join(known)}")
    return given


def main() -> int:
    """Do what the command line names; return the exit status."""
    given = arguments()
    work, results = given.work.resolve(), given.results.resolve()
    if given.what == "page":
        write_page(results)
        return 0
    table = given.number if given.what == "table" else FIGURES[given.number].table
    study = Study(table, given.protocol, work, results, given.data_root, given.examples, tuple(given.train.split()))
    rows = rows_of(table) if given.what == "table" else FIGURES[given.number].rows
    chosen = [row for row in rows if not given.rows or row.preset in given.rows]
    jobs = [study.job(row, seed) for seed in given.seeds for row in chosen]
    failed = run_jobs(jobs, work, given.jobs)
    if given.what == "figure" and not failed:
        if busy := next((job.label for job in jobs if not job.result.exists()), None):
            print(f"error: another program runs {busy}; give this command again when it has ended.")
            return 1
        runs = {row.preset: study.run(row, given.seeds[0]) for row in rows}
        if lost := next((run for run in runs.values() if not run.is_dir()), None):
            print(f"error: {lost} is missing, though its result is there; name its --work, or other --results.")
            return 1
        target = figure_path(given.number, study.variant)
        draw_figure(given.number, runs, given.data_root, target)
        print(f"saved {target}")
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
