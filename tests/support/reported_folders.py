"""Small folders as runs and `evaluate` write them, with numbers that tests know; and a reader of the report's page."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from vdvae_lr.evaluation.document import Evaluation, InputRates, write_evaluation
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.report.page import report_page
from vdvae_lr.report.reported import read_reported

RESOLUTIONS = (1, 4, 4, 8)
SETTINGS: Mapping[str, Any] = {
    "hps": "mine",
    "iters": 20,
    "global_batch": 4,
    "alpha_T": 0.5,
    "lr_form": "information",
    "pretrained": "fashion",
    "dataset": "fashion_small",
    "image_size": 8,
    "image_channels": 3,
    "enc_blocks": "8x1,8d2,4x1,4d4,1x1",
    "dec_blocks": "1x1,4m1,4x1,8m4",
    "zdim": 2,
}


def quantity(key: str, title: str, unit: str, groups: Iterable[float], error: float | None = 0.01) -> Quantity:
    """A quantity that adds up over the groups of `RESOLUTIONS`."""
    values = tuple(groups)
    levels = sorted(set(RESOLUTIONS))
    sums = {level: sum(v for v, own in zip(values, RESOLUTIONS, strict=True) if own == level) for level in levels}
    return Quantity(
        key,
        title,
        unit,
        Measurement(sum(values), error, 50),
        tuple(Measurement(value, error, 50) for value in values),
        {level: Measurement(value, error, 50) for level, value in sums.items()},
    )


def evaluation(name: str = "model", shift: float = 0.0, **changes: Any) -> Evaluation:
    """An evaluation with four latent groups; `shift` is added to the rate of each group."""
    noise = [
        Quantity(f"noise_rms_raw_{level}", f"image RMS, latent noise {level:g}", "", Measurement(level / 4, 0.001, 8))
        for level in (0.0, 0.3, 0.4)
    ]
    quantities = (
        Quantity("negative_elbo", "bound (-ELBO)", "nats/dim", Measurement(1.5 + shift, 0.02, 50)),
        quantity("rate", "rate", "nats/dim", [0.4 + shift, 0.3 + shift, 0.2 + shift, 0.1 + shift]),
        quantity("latent_r2_sampled_image", "latent R²", "", [0.9, 0.5, float("nan"), -0.1], None),
        quantity("noise_rms_raw_0.4", "image RMS, latent noise 0.4", "", [0.04, 0.03, 0.02, 0.01]),
        *noise[:2],
    )
    shares = {"0": 0.5, "0.05": 0.6, "0.5": 1.0, "0.95": 1.4, "1": 1.5}
    by_group = tuple({share: value / 4 for share, value in shares.items()} for _ in RESOLUTIONS)
    made = Evaluation(
        name=name,
        source="fashion",
        model={"image_size": 8, "image_channels": 3, "zdim": 2, "bits": 8, "likelihood": "normalised"},
        dimensions=192,
        resolutions=RESOLUTIONS,
        dataset="fashion_small",
        split="test",
        examples=50,
        seed=0,
        versions={"vdvae_lr": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "device": "cpu"},
        quantities=quantities,
        inputs=InputRates(50, "nats/dim", shares, by_group, ((17, 0.5), (3, 0.55))),
        notes=("Group 3 has more latents than the image has numbers.",),
        settings={"noise_images": 8},
    )
    return replace(made, **changes)


def evaluated_folder(folder: Path, name: str = "model", **changes: Any) -> Path:
    """Write a folder with an evaluation and two of its pictures."""
    write_evaluation(evaluation(name, **changes), folder / "evaluation.json")
    for picture in ("nearest_collapse.png", "noise_raw_0.4.png"):
        write_picture(folder / picture)
    return folder


def write_picture(path: Path, size: tuple[int, int] = (40, 24), mode: str = "RGB") -> Path:
    """Save a picture of smooth colours, or of greys (`mode` L)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x * 5 % 256, y * 7 % 256, (x + y) * 3 % 256], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def run_folder(folder: Path, evaluated: bool = True, iterations: int = 20, **settings: Any) -> Path:
    """Write the folder of a finished run: log, two pictures, one (empty) checkpoint, and an evaluation."""
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({**SETTINGS, **settings}))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines(iterations)))
    for number in (10, iterations):
        write_picture(folder / "images" / f"step-{number:08d}.png")
    (folder / "checkpoints" / f"step-{iterations:08d}").mkdir(parents=True)
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events.out.tfevents.1700000000.host.1.0").touch()
    if evaluated:
        evaluated_folder(folder / "evaluation", folder.name)
    return folder


def log_lines(iterations: int) -> list[dict[str, Any]]:
    """A training line every second iteration, and one held-out bound at the end."""
    lines: list[dict[str, Any]] = [
        {
            "kind": "train",
            "iteration": number,
            "negative_elbo_nats_per_dim": 2 - number / 100,
            "rate_nats_per_dim": 0.5,
            "distortion_nats_per_dim": 1.5 - number / 100,
            "latent_reconstruction": -0.01 * number,
            "alpha": 0.5 * number / iterations,
            "gradient_norm": 10.0 ** (number % 4),
            "skipped_updates": number // 10,
            "bad_images": 0,
        }
        for number in range(2, iterations + 1, 2)
    ]
    held_out = {
        "examples": 50,
        "negative_elbo_nats_per_dim": 1.7,
        "negative_elbo_standard_error_nats_per_dim": 0.05,
        "rate_nats_per_dim": 0.5,
        "distortion_nats_per_dim": 1.2,
        "group_rates_nats_per_dim": [0.2, 0.15, 0.1, 0.05],
        "information_from_samples_nats_per_dim": 0.3,
        "information_from_samples_standard_error_nats_per_dim": 0.01,
    }
    return [*lines, {"kind": "eval", "iteration": iterations, **held_out}]


def svg_of(address: str | None) -> str:
    """The SVG file in the address of an image."""
    kind, _, content = str(address).partition(",")
    assert kind == "data:image/svg+xml"
    return unquote(content)


class PageReader(HTMLParser):
    """Reads a page: its elements with their attributes, its texts, and whether all elements are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("br", "img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of one kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """All texts, in order."""
        return " ".join(" ".join(self.texts).split())


def page_of(*words: object, unimportant: tuple[str, ...] = ()) -> str:
    return report_page(read_reported([str(word) for word in words]), unimportant)


def row(page: str, title: str) -> list[str]:
    """Cells of the first table row that is called so, without tags."""
    for head, cells in re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page):
        if re.sub(r" <small>.*</small>|<[^>]+>", "", head) == title:
            return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td>(.*?)</td>", cells)]
    raise AssertionError(f"there is no row '{title}'")
