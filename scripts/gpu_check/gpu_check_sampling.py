"""Samples a second on a CUDA GPU, ours and those of a plain sampler, which stands for the published code.

This is a section of `gpu_check.py`. Both sample with random weights; times include the copy to the host.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from benchmark import SMALL, exact_float32, fresh_memory, generated_images, settings_of, small_start
from gpu_check_table import Check
from plain_vdvae import sampled_levels

from vdvae_lr.datasets.loader import usable_cores
from vdvae_lr.files.writing_threads import MOST_THREADS, WritingThreads
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.image_files import single_picture
from vdvae_lr.pictures.images import as_pictures
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.pictures.sampling import SamplePrecision, sample_batches
from vdvae_lr.training.build import build_training

COLUMNS = ("at once", "plain", "ours, fp32, eager", "ours, bf16, eager", "ours, bf16, graph", "times as fast", "goal")
FASTER_GOAL = 5.0
WARM_UP, TIMED = 3, 8  # batches; a graph replays from the third one on
COMPARED, COMPARED_BATCH = 40, 8  # pictures: enough batches for a graph
BF16_LEVELS, GRAPH_LEVELS = 1.0, 0.1  # tolerances of a mean difference; a CPU's bf16 differs by 0.3


def check_sampling(check: Check, preset: str, counts: Sequence[int] = (32, 8, 1)) -> None:
    """Measure samples a second of each number of pictures at once, then what pictures and files depend on."""
    check.report.table(f"{preset}: samples a second, float32 with torch's default TF32", COLUMNS)
    for images in counts:
        check.row(str(images), 30, lambda images=images: _speed_cells(check, preset, images))
    check.report.table("Pictures and PNG files", ("what", "verdict", "found"))
    check.row(f"{SMALL}: bf16 against float32", 10, lambda: _difference_cells(check, "bf16", False, BF16_LEVELS))
    check.row(f"{SMALL}: graph against eager", 10, lambda: _difference_cells(check, "fp32", True, GRAPH_LEVELS))
    check.row(f"PNG files of {preset}'s size", 5, lambda: _file_cells(preset))


def _speed_cells(check: Check, preset: str, images: int) -> list[str]:
    plain = _plain_rate(check, preset, images)
    fresh_memory()
    model = VDVAE(settings_of(preset).model)
    model.to(device=check.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    count, rates, cells = images * (WARM_UP + TIMED), list[float](), list[str]()
    precisions: list[tuple[SamplePrecision, bool]] = [("fp32", False), ("bf16", False), ("bf16", True)]
    for precision, cuda_graph in precisions:
        with redirect_stderr(StringIO()) as said:
            drawn = sample_batches(model, count, 1.0, 0, "sample", images, precision, cuda_graph=cuda_graph)
            rates.append(_rate(drawn, images))
        cells.append(f"{rates[-1]:.2f} {said.getvalue().strip()}".strip())
    goal = f"≥ {FASTER_GOAL:g}"
    if plain is None:
        return ["does not fit", *cells, "-", goal]
    return [f"{plain:.2f}", *cells, f"{rates[-1] / plain:.2f}", goal]


def _plain_rate(check: Check, preset: str, images: int) -> float | None:
    """Pictures a second of the plain sampler; None if they do not fit into memory."""
    torch.manual_seed(0)
    model = VDVAE(settings_of(preset).model).to(check.world.device)
    try:
        return _rate((sampled_levels(model, images) for _ in range(WARM_UP + TIMED)), images)
    except torch.cuda.OutOfMemoryError:
        return None


def _rate(batches: Iterable[object], images: int) -> float:
    """Pictures a second, after the first batches."""
    moments = [time.perf_counter() for _ in batches]
    return images * TIMED / (moments[-1] - moments[-1 - TIMED])


def _difference_cells(check: Check, precision: SamplePrecision, cuda_graph: bool, tolerance: float) -> list[str]:
    """Compare pictures with those of eager float32."""
    settings = settings_of(SMALL)
    model = build_training(settings, check.world, small_start(settings)[0]).model
    with exact_float32(), redirect_stderr(StringIO()) as said:
        found, expected = (
            torch.cat([torch.from_numpy(part).float() for part in drawn])
            for drawn in (
                sample_batches(model, COMPARED, 1.0, 0, "sample", COMPARED_BATCH, each, cuda_graph=graph)
                for each, graph in ((precision, cuda_graph), ("fp32", False))
            )
        )
    difference = float((found - expected).abs().mean())
    passed = difference <= tolerance and not said.getvalue()
    return [check.verdict(passed), f"mean difference {difference:.3f} levels {said.getvalue().strip()}".strip()]


def _file_cells(preset: str) -> list[str]:
    pictures = list(as_pictures(generated_images(settings_of(preset).model, 64).pixels))
    found = []
    for threads in (1, min(usable_cores(), MOST_THREADS)):
        with TemporaryDirectory() as folder, WritingThreads(threads) as writing:
            start = time.perf_counter()
            for number, picture in enumerate(pictures):
                writing.add(partial(save_png, single_picture(picture), Path(folder) / f"{number}.png"))
            writing.wait()
            found.append(f"{len(pictures) / (time.perf_counter() - start):.0f} a second with {threads} thread(s)")
    return ["-", ", ".join(found)]
