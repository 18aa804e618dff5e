"""Time and memory of each section of `vdvae-lr evaluate` on a CUDA GPU; compares numbers without noise with the CPU.

This is a section of `gpu_check.py`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from benchmark import SMALL, exact_float32, generated_images, settings_of, small_images, small_start
from closeness import relative_error
from gpu_check_table import Check
from measured_pixels import latent_statistics

from vdvae_lr.datasets.sources import ArraySource, all_rows
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.sections import SECTIONS
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training

T = TypeVar("T")

BIG = "ffhq256"
SMALL_IMAGES, BIG_IMAGES = 128, 2
ACTIVITY_TOLERANCE = 1e-3  # relative error of a variance over 128 images; float32 rounding is far smaller
LITTLE = SectionSettings(
    mixture_batch=2,
    mixture_images=2,
    importance_images=1,
    importance_draws=2,
    gap_images=0,
    jacobian_images=1,
    jacobian_values=2,
    noise_images=1,
    noise_variances=(0.3,),
    noise_units=("prior_scale",),
    reader_iterations=2,
    reader_batch=1,
)
"""For ffhq256: every section, with its smallest settings."""


def _silently(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    return items


def _measuring(images: np.ndarray, world: World, batch: int) -> Measuring:  # type: ignore[type-arg]
    return Measuring(ArraySource(images, all_rows(images), "images"), len(images), batch, 0, world, _silently)


def check_evaluation(check: Check) -> None:
    """Run every section of an evaluation: on the small model with default settings and a short training of a reader,
    then on ffhq256 with the smallest.
    """
    columns = ("section", "verdict", "seconds", "peak, GB", "quantities", "not finite")
    small = build_training(settings_of(SMALL), check.world, small_start(settings_of(SMALL))[0]).model
    pixels = small_images(0, SMALL_IMAGES, training=False).pixels
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    check.report.table(f"`evaluate`, {SMALL}, {SMALL_IMAGES} images", columns)
    task = Task(
        small, None, _measuring(images, check.world, 32), dataclasses.replace(SectionSettings(), reader_iterations=20)
    )
    _section_rows(check, SMALL, task, 15)
    check.row("variances of posterior means against the CPU", 10, lambda: _activity_cells(check, small, images))
    _big_rows(check, columns)


def _big_rows(check: Check, columns: tuple[str, ...]) -> None:
    """Run the sections on ffhq256 with random weights and generated images; only their cost means something."""
    settings = settings_of(BIG)
    big = build_training(settings, check.world, StartWeights(None, None)).model
    images = generated_images(settings.model, BIG_IMAGES).pixels.permute(0, 2, 3, 1).contiguous().numpy()
    check.report.table(f"`evaluate`, {BIG}, random weights, {BIG_IMAGES} images, each section at its least", columns)
    _section_rows(check, BIG, Task(big, None, _measuring(images, check.world, 1), LITTLE), 30)


def _section_rows(check: Check, name: str, task: Task, seconds: float) -> None:
    for section in SECTIONS:
        label = f"{name}: {section.__name__.removeprefix('measure_').replace('_', ' ')}"
        check.row(label, seconds, lambda section=section: _section_cells(check, section, task))


def _section_cells(check: Check, section: Callable[[Task], Findings], task: Task) -> list[str]:
    on_card = check.world.device.type == "cuda"
    start = time.monotonic()
    with exact_float32():
        found = section(task)
    seconds = time.monotonic() - start
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_card else 0.0
    totals = [quantity.total.value for quantity in found.quantities if quantity.total is not None]
    bad = sum(not math.isfinite(value) for value in totals)
    count = len(found.quantities)
    return [check.verdict(count > 0), f"{seconds:.1f}", f"{peak:.2f}", str(count), str(bad)]


def _activity_cells(check: Check, model: VDVAE, images: np.ndarray) -> list[str]:  # type: ignore[type-arg]
    """Compare variances of posterior means. They contain no noise, so GPU and CPU compute the same numbers."""
    beside = World(0, 1, torch.device("cpu"))
    on_cpu = VDVAE(model.config)
    on_cpu.load_state_dict({name: tensor.cpu() for name, tensor in model.state_dict().items()})
    with exact_float32():
        variances = [
            torch.cat([group.flatten().cpu() for group in latent_statistics(each, batches, world=world).variances])
            for each, world in ((model, check.world), (on_cpu, beside))
            for batches in [_measuring(images, world, 32).batches("")]
        ]
    error = relative_error(*variances)
    return [check.verdict(error <= ACTIVITY_TOLERANCE), f"they differ by {error:.1e}", "", "", ""]
