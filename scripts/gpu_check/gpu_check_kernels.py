"""The likelihood's Triton kernel on a CUDA GPU, beside the plain formula: errors and times.

This is a section of `gpu_check.py`. A run makes the same trial at its start.
"""

from collections.abc import Callable, Sequence

from benchmark import settings_of
from gpu_check_table import Check

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.logistic_mixture import WithSlopes
from vdvae_lr.training.kernels import MOST_TIMES_THE_ERROR, tried, triton_kernel

COLUMNS = ("model, images", "verdict", "errors, kernel/formula", "kernel, ms", "formula, ms", "formula/kernel")


def check_kernels(
    check: Check,
    presets: Sequence[str],
    counts: Sequence[int] = (1, 8),
    load: Callable[[], WithSlopes] = triton_kernel,
) -> None:
    """Try the kernel with the shapes of each preset; passes if it errs little more than the formula in float32."""
    title = f"Likelihood with its gradient (passes up to {MOST_TIMES_THE_ERROR:g} times the formula's errors)"
    check.report.table(title, COLUMNS)
    for preset in presets:
        for images in counts:
            check.row(f"{preset}, {images}", 10, lambda given=(preset, images): _cells(check, load(), *given))


def _cells(check: Check, kernel: WithSlopes, preset: str, images: int) -> list[str]:
    trial = tried(kernel, VDVAE(settings_of(preset).model).to(check.world.device), images)
    return [
        check.verdict(trial.times_the_error <= MOST_TIMES_THE_ERROR),
        f"{trial.times_the_error:.2f}",
        f"{trial.kernel_ms:.3f}",
        f"{trial.plain_ms:.3f}",
        f"{trial.plain_ms / trial.kernel_ms:.1f}",
    ]
