"""Draw the pictures of docs/study_price.md: samples of some rows, and images under noise in the latents.

    python scripts/study/study_price_pictures.py --work WORK

WORK is the folder of `study_price.py run`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.paths import path_of
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.evaluation_pictures import first_pixels, noise_pictures
from vdvae_lr.pictures.images import as_pictures, samples
from vdvae_lr.pictures.picture_grid import picture_grid, save_png

ROWS = (
    "tuned-plain",
    "tuned-constant-0.3",
    "tuned-constant-1",
    "tuned-prior-0.1",
    "tuned-prior-0.3",
    "beta-0.5",
    "constant-0.3-times4",
)
COUNT, SEED, VARIANCE = 14, 0, 0.3
FIGURES = ROOT / "docs" / "figures"


def draw(work: Path, data: str) -> None:
    """Both pictures, with the same noise for every row that has a run."""
    runs = {name: work / "runs" / data / f"{name}-seed0" for name in ROWS}
    models = {name: PretrainedModel.from_pretrained(str(run)) for name, run in runs.items() if run.is_dir()}
    config = next(iter(models.values())).config
    settings = DataSettings(dataset="folder", data_root=str(work / data))
    pixels = first_pixels(open_splits(settings, config.image_size, config.image_channels).test, COUNT)
    drawn = {name: samples(model, COUNT, seed=SEED)[0] for name, model in models.items()}
    save_png(picture_grid(list(drawn.values()), [_words(name) for name in drawn]), FIGURES / "study_price_samples.png")
    noisy = {"images": as_pictures(pixels)}
    for name, model in models.items():
        clean, moved = noise_pictures(model, pixels, (0.0, VARIANCE), seed=SEED, unit="prior_scale")
        noisy |= {f"{_words(name)}, no noise": clean, f"{_words(name)}, noise": moved}
    title = f"Mean images, without noise and with noise of {VARIANCE} times the prior's variance in every group"
    save_png(picture_grid(list(noisy.values()), list(noisy), title=title), FIGURES / "study_price_noise.png")


def _words(name: str) -> str:
    return name.replace("-", " ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=path_of, required=True)
    parser.add_argument("--data", default="fashion8")
    given = parser.parse_args()
    draw(given.work, given.data)
