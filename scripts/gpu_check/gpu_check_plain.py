"""Our steps on a CUDA GPU beside a plain step of the same model, which stands for the published code.

This is a section of `gpu_check.py`. Both start from random weights, on the same generated images.
"""

from collections.abc import Sequence
from statistics import median

import torch
from benchmark import (
    StepCase,
    StepMeasurement,
    fresh_memory,
    generated_images,
    measure_step,
    settings_of,
    step_milliseconds,
)
from gpu_check_table import Check
from plain_vdvae import PlainTraining
from traffic import fused, step_traffic

from vdvae_lr.hub.pretrained import VDVAE

COLUMNS = (
    *("images", "plain step, ms", "our ELBO step, ms", "times as fast", "goal", "LR/ELBO", "goal"),
    *("plain peak, GB", "our peak, GB", "ours/plain", "goal", "floor, ms", "floor/ours"),
)
"""The floor is the time in which this device reads and writes what a perfect compiler leaves of our ELBO step."""
FASTER_GOALS = {1: 6.0, 8: 3.0}
"""By images: how many times as fast as the plain step ours shall be."""
LR_GOAL, MEMORY_GOAL = 1.35, 0.4
WARM_UP, TIMED = 2, 8
COPIED_BYTES = 2**28


def check_against_plain(check: Check, preset: str, counts: Sequence[int] = (1, 8, 4, 16)) -> None:
    """Measure the plain step, our ELBO step and our LR step of each number of images; reported only."""
    check.report.table(f"{preset} beside a plain step of the same model in float32", COLUMNS)
    rate = bytes_per_ms(check.world.device)
    for images in counts:
        check.row(str(images), 40, lambda images=images: _cells(check, preset, images, rate))


def _cells(check: Check, preset: str, images: int, rate: float) -> list[str]:
    elbo, lr = (_ours(check, StepCase(images, objective, preset=preset)) for objective in ("ELBO", "LR"))
    plain = _plain(check, preset, images)
    plain_ms, faster, plain_peak, share = "does not fit", "-", "-", "-"
    if plain is not None:
        plain_ms, faster = f"{plain[0]:.1f}", f"{plain[0] / elbo.median:.2f}"
        plain_peak, share = f"{plain[1] / 1e9:.1f}", f"{elbo.peak_bytes / plain[1]:.2f}"
    speed = [plain_ms, f"{elbo.median:.1f}", faster, _goal(FASTER_GOALS.get(images), "≥")]
    ratio = [f"{lr.median / elbo.median:.2f}", _goal(LR_GOAL, "≤")]
    memory = [plain_peak, f"{elbo.peak_bytes / 1e9:.1f}", share, _goal(MEMORY_GOAL, "≤")]
    floor_ms = fused(step_traffic(preset, "ELBO", "bf16", images).both)[1] / rate
    return [*speed, *ratio, *memory, f"{floor_ms:.1f}", f"{floor_ms / elbo.median:.2f}"]


def bytes_per_ms(device: torch.device) -> float:
    """The bytes that a copy within the device's memory reads and writes in a millisecond: the best of a few."""
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    return 2 * COPIED_BYTES / min(step_milliseconds(lambda _: copy.copy_(source), range(TIMED), device))


def _goal(value: float | None, relation: str) -> str:
    return "-" if value is None else f"{relation} {value:g}"


def _ours(check: Check, case: StepCase) -> StepMeasurement:
    """As section `steps` measured it in the same run, or measured now."""
    if case not in check.steps:
        check.steps[case] = measure_step(check.world, case)
    return check.steps[case]


def _plain(check: Check, preset: str, images: int) -> tuple[float, int] | None:
    """The median of a plain step in milliseconds, and its peak memory in bytes (on a CPU 1); None: too large."""
    fresh_memory()
    device = check.world.device
    settings = settings_of(preset)
    batch = generated_images(settings.model, images)
    torch.manual_seed(0)
    try:
        plain = PlainTraining(VDVAE(settings.model).to(device), settings.optimisation)
        times = step_milliseconds(lambda _: plain(batch.pixels.to(device)), range(WARM_UP + TIMED), device)
    except torch.OutOfMemoryError:
        return None
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 1
    return median(times[WARM_UP:]), peak
