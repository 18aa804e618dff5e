"""Whether the blocks are compiled (`--compile`). `auto` tries it on CUDA, in a run that is long enough to pay for it.

The compiler runs here for the first time on a person's card, so nothing is taken on trust: a failure, another gradient
or a slower step leaves the plain step, and one line says why.
"""

import time

import numpy as np
import torch
from torch.nn import functional as F

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import first_line
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World
from vdvae_lr.training.settings import RunSettings
from vdvae_lr.training.step import TrainingStep

_COMPILED_SHAPES = 256  # blocks differ by resolution, width, batch and pass; torch stops compiling after 8 of them
_PAYS_AFTER_S = 1200.0  # of plain steps: on 2 CPU cores 10 graphs take 1.8 minutes (docs/benchmarks/step.md)
_LARGEST_DIFFERENCE = 0.1  # between gradients, relative: bf16 changes that of the small model's smooth images by 0.013


def compile_blocks(model: LatentModel) -> None:
    """Let torch compile the model's blocks when they are used next with the compiler on."""
    torch._dynamo.config.recompile_limit = _COMPILED_SHAPES
    for part in model.compile_parts():
        part.compile(dynamic=False)


def tries_compiling(run_settings: RunSettings, world: World) -> bool:
    """Whether a run finds out by trial if its blocks should be compiled."""
    return run_settings.compile == "auto" and world.device.type == "cuda" and not run_settings.test_eval


def choose_compiled(step: TrainingStep, iterations: int) -> str:
    """Compile the blocks of the next steps if that pays within so many iterations; every process chooses alike.

    Returns a sentence that says what was chosen and why; an empty one if the run is too short to try. It raises what a
    plain step raises.
    """
    world = step.world
    world.at("trying whether compiled blocks are faster")
    batch = _smooth_images(step)
    plain, plain_s = step.trial(batch, compiled=False)
    if world.highest(plain_s * step.local_micro_batches * iterations >= _PAYS_AFTER_S) == 0:
        return ""
    start = time.monotonic()
    try:
        compile_blocks(step.model)
        gradient, compiled_s = step.trial(batch, compiled=True)
        difference = float((gradient - plain).norm() / plain.norm())
        right = difference <= _LARGEST_DIFFERENCE
        why = f"{1000 * compiled_s:.0f} ms a micro-batch compiled, {1000 * plain_s:.0f} ms plain"
        why = why if right else f"compiled ones give another gradient, by {difference:.0%}"
        keep = right and compiled_s < plain_s
    except Exception as error:  # a compiler can fail in any way, and the plain step needs none
        keep, why = False, f"compiling failed ({type(error).__name__}: {first_line(error)})"
    if world.highest(not keep):
        step.use(compiled=False)
        return f"compile auto: plain blocks ({why}{'; another process cannot use compiled ones' if keep else ''})."
    return f"compile auto: compiled blocks ({why}; the trial took {time.monotonic() - start:.0f} s)."


def _smooth_images(step: TrainingStep) -> Batch:
    """Images that no model was trained on. Their gradient is large; that of real ones is half rounding in bf16."""
    channels, size, _ = step.model.image_shape
    coarse = torch.rand(step.n_batch, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = 255 * F.interpolate(coarse, size=(size, size), mode="bilinear")
    return Batch(levels.to(torch.uint8).contiguous(memory_format=torch.channels_last), np.arange(step.n_batch))
