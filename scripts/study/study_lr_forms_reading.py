"""Measure who can read the images of the study's rows: the row's own encoder, the one from before, and a fresh one.

    python scripts/study/study_lr_forms_reading.py --data_root FASHION            all rows with a result and a run
    python scripts/study/study_lr_forms_reading.py --data photos
    python scripts/study/study_lr_forms_reading.py --longer                       the rows of the longer runs
    python scripts/study/study_lr_forms_reading.py --reader_iterations 2000       also by a reader trained afresh
    python scripts/study/study_lr_forms_reading.py --samples                      the picture of the document

Eq. 5 bounds the information in a model's samples for any encoder that reads them. If the encoder from before
fine-tuning reads nothing, decoder and encoder have agreed on a code, or have opened latents that it never knew. A
reader trained afresh on the row's samples finds the second, if it can be learned. A row is one `vdvae-lr evaluate`. A
row that has a reading is not read again.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from study_lr_forms import ROOT, ROWS, Row, Study, study_of
from study_lr_forms_table import DOCUMENT

from vdvae_lr.evaluation.document import read_evaluation
from vdvae_lr.files.paths import path_of
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.picture_grid import picture_grid, save_png
from vdvae_lr.pictures.sampling import sample

PICTURE = ROOT / "docs" / "figures" / "study_lr_forms_samples.png"
COLUMNS = {
    "information_from_samples": "eq. 5",
    "information_from_samples_before": "eq. 5, read by the encoder before",
    "information_from_samples_fresh": "eq. 5, read by one trained afresh",
    "recovered_sampled_image": "recovered, sample",
    "recovered_sampled_image_before": "recovered, sample, by the encoder before",
}
SHOWN = {
    "before": "",
    "plain": "fashion-plain",
    "sample, posterior, 1": "fashion-information-constant-sample-posterior-sum-1",
    "live: sample, posterior, 1": "fashion-information-live-sample-posterior-sum-1",
    "mean, posterior, 1": "fashion-information-constant-mean-posterior-sum-1",
    "mean, prior, 0.1": "fashion-information-constant-mean-prior-sum-0.1",
    "sample, prior, 0.1": "fashion-information-constant-sample-prior-sum-0.1",
    "sample, prior, 0.3": "fashion-information-constant-sample-prior-sum-0.3",
    "sample, prior, 1": "fashion-information-constant-sample-prior-sum-1",
    "longer: plain": "fashion_longer-plain",
    "longer: sample, posterior, 1": "fashion_longer-information-constant-sample-posterior-sum-1",
    "longer, live: sample, posterior, 1": "fashion_longer-information-live-sample-posterior-sum-1",
    "longer, live: sample, posterior, 0.3": "fashion_longer-information-live-sample-posterior-sum-0.3",
}
SHOWN_SAMPLES = 12
LEFT_OUT = ("mixture_batch", "mixture_images", "importance_images", "gap_images", "jacobian_images", "noise_images")
BLOCK = re.compile(r"(<!-- readings: (\w+) -->\n).*?(<!-- end of readings -->)", re.DOTALL)

Readings = dict[str, dict[str, Any]]


def reading_words(study: Study, row: Row, seed: int, examples: int, reader_iterations: int = 0) -> list[str]:
    """Arguments of `vdvae-lr` for a row. The run itself says which model it started from."""
    label = study.label(row, seed)
    nothing = [word for name in (*LEFT_OUT, "images") for word in (f"--{name}", "0")]
    out = study.work / "evaluations" / label
    return [
        "evaluate", str(study.work / "runs" / label), *study.dataset, "--examples", str(examples), *nothing,
        "--reader_iterations", str(reader_iterations), "--out", str(out),
    ]  # fmt: skip


def read_rows(study: Study, path: Path, examples: int, reader_iterations: int) -> Readings:
    """Read the rows that have a result and a run, but no reading. Each reading is written as soon as it is made."""
    readings: Readings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for row in ROWS:
        for seed in range(10):
            label = study.label(row, seed)
            run = study.work / "runs" / label
            if label in readings or not (study.result(row, seed).exists() and run.is_dir()):
                continue
            folder = study.work / "evaluations" / label
            if not (folder / "evaluation.json").exists():
                command = [
                    sys.executable,
                    "-m",
                    "vdvae_lr",
                    *reading_words(study, row, seed, examples, reader_iterations),
                ]
                subprocess.run(command, cwd=ROOT, check=True)
            readings[label] = _reading(folder) | {"data": study.data, "name": row.name, "seed": seed}
            write_whole(path, (json.dumps(readings, indent=1) + "\n").encode())
    return readings


def _reading(folder: Path) -> dict[str, Any]:
    found = read_evaluation(folder)
    totals = {quantity.key: quantity.total for quantity in found.quantities if quantity.key in COLUMNS}
    measured = {key: [each.value, each.standard_error] for key, each in totals.items() if each is not None}
    return {"examples": found.examples, "measured": measured}


def reading_table(readings: Mapping[str, Mapping[str, Any]], data: str) -> str:
    """One line for each row of a data set, with means over seeds; plain first, then by the old encoder's reading."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for reading in readings.values():
        if reading["data"] == data:
            rows.setdefault(reading["name"], []).append(reading["measured"])
    columns = {
        key: words for key, words in COLUMNS.items() if all(key in each for row in rows.values() for each in row)
    }
    means = {
        name: [statistics.fmean(each[key][0] for each in row) for key in columns] + [len(row)]
        for name, row in rows.items()
    }
    ordered = sorted(means.items(), key=lambda item: (item[0] != "plain", -item[1][1]))
    lines = [f"| row | seeds | {' | '.join(columns.values())} |", "|---" * (len(columns) + 2) + "|"]
    for name, (*values, seeds) in ordered:
        lines.append(f"| {name.replace('-', ' ')} | {seeds} | {' | '.join(f'{value:.4f}' for value in values)} |")
    return "\n".join(lines) + "\n"


def write_tables(readings: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the tables between the comments of the document."""
    text = BLOCK.sub(
        lambda match: f"{match[1]}\n{reading_table(readings, match[2])}\n{match[3]}",
        DOCUMENT.read_text(encoding="utf-8"),
    )
    write_whole(DOCUMENT, text.encode())


def draw_samples(study: Study) -> None:
    """Draw mean images of latents from the prior, with the same noise for every row, seed 0."""
    models = [
        VDVAE.from_pretrained(study.work / "runs" / f"{name}-seed0" if name else "fashion") for name in SHOWN.values()
    ]
    save_png(picture_grid([sample(model, SHOWN_SAMPLES, image="mean") for model in models], list(SHOWN)), PICTURE)


def main(words: Sequence[str] | None = None) -> int:
    """Read the rows and write the document's tables; return the exit status."""
    parser = argparse.ArgumentParser(description="Read the study's rows by the encoder from before fine-tuning.")
    parser.add_argument("--data", choices=("fashion", "photos"), default="fashion")
    parser.add_argument("--data_root", type=path_of, help="folder of the images")
    parser.add_argument("--work", type=path_of, default=ROOT / "runs" / "study_lr_forms", help="folder of the runs")
    parser.add_argument("--results", type=path_of, default=ROOT / "docs" / "studies" / "lr_forms")
    parser.add_argument("--examples", type=int, default=300, help="images and samples for each row")
    parser.add_argument("--reader_iterations", type=int, default=0, help="steps of a reader trained afresh; 0: none")
    parser.add_argument("--longer", action="store_true", help="read the longer runs")
    parser.add_argument("--samples", action="store_true", help="only draw the picture of samples")
    given = parser.parse_args(words)
    given.stage, given.iters = "longer" if given.longer else "confirm", None
    study = study_of(given)
    if given.samples:
        draw_samples(study)
        return 0
    write_tables(read_rows(study, study.results / "readings.json", given.examples, given.reader_iterations))
    return 0


if __name__ == "__main__":
    sys.exit(main())
