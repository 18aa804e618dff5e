"""How many images a process takes at once (`--n_batch auto`): on a card as many as fit, found by trial.

Noise belongs to an image's place in the step. So the split of a step into micro-batches changes nothing but rounding,
unless the loss looks at a micro-batch as a whole (`Settings.looks_at_micro_batches`).
"""

import json
from dataclasses import replace

import numpy as np
import torch

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.files.run_folder import CHECKPOINTS, SETTINGS_NAME, complete_checkpoints
from vdvae_lr.hub.pretrained import model_class
from vdvae_lr.processes.cuda_graph import is_out_of_memory, release_memory
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.claimed_folder import folder_of
from vdvae_lr.training.settings import Settings

_NUMBERS_AT_ONCE = 49_152  # 16 colour images of 32×32: no more are taken at once where nothing is tried
_FREE_SHARE = 0.1  # of a card, for what a run needs besides its step: evaluation, pictures, fragments


def with_micro_batches(settings: Settings, world: World) -> tuple[Settings, str]:
    """The settings with numbers for `global_batch` 0 and `n_batch` auto, so that settings.json records those used.

    `auto` is the largest divisor of a process's share with which a step fits on every process's card. Elsewhere than on
    CUDA, and if the loss looks at micro-batches, nothing is tried: it is the largest divisor with which a micro-batch
    has at most 49,152 numbers. A run that goes on keeps its number if that still divides the share.

    The processes must be able to share `global_batch` evenly (`RunSettings.micro_batches` checks it). Returns the
    settings, and a sentence for the person if something was tried.
    """
    global_batch = settings.run.images_of_a_step(world.size)
    share = global_batch // world.size
    settings = replace(settings, run=replace(settings.run, global_batch=global_batch))
    if settings.run.n_batch != "auto":
        return settings, ""
    recorded = world.highest(_recorded(settings) if world.is_main else 0)
    divisors = [size for size in range(share, 0, -1) if share % size == 0]
    notice = ""
    if recorded in divisors:
        n_batch = recorded
    elif world.device.type != "cuda" or settings.looks_at_micro_batches:
        with torch.device("meta"):
            most = _NUMBERS_AT_ONCE // model_class(settings.model)(settings.model).dimensions
        n_batch = next((size for size in divisors if size <= most), 1)
    else:
        n_batch = found_by_trial(settings, world, divisors)
        notice = f"n_batch auto is {n_batch}: of the numbers that divide {share}, the largest that fits the card."
    return replace(settings, run=replace(settings.run, n_batch=n_batch)), notice


def _recorded(settings: Settings) -> int:
    """The number that an earlier start of the run settled on; 0 if there is none."""
    folder = folder_of(settings.run)
    if settings.run.fresh or not complete_checkpoints(folder / CHECKPOINTS):
        return 0
    try:
        found = json.loads((folder / SETTINGS_NAME).read_text(encoding="utf-8")).get("n_batch")
    except (OSError, ValueError, AttributeError):  # to claim the folder refuses it in words
        return 0
    return found if isinstance(found, int) else 0


def found_by_trial(settings: Settings, world: World, sizes: list[int]) -> int:
    """The first of `sizes`, which fall to 1, with which one step fits on the card of every process."""
    world.at("trying how many images fit")
    alone = World(0, 1, world.device)
    own = next((size for size in sizes[:-1] if _fits(settings, alone, size)), 1)
    return -world.highest(-own)


def _fits(settings: Settings, alone: World, n_batch: int) -> bool:
    """Whether one step with so many images leaves some of the card's memory free."""
    try:
        _take_a_step(settings, alone, n_batch)
        free, total = torch.cuda.mem_get_info(alone.device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        release_memory()
    return free >= _FREE_SHARE * total


def _take_a_step(settings: Settings, alone: World, n_batch: int) -> None:
    """Take one step of `n_batch` black images from random weights. It is not compiled, which only takes more memory."""
    run = replace(settings.run, n_batch=n_batch, global_batch=n_batch, compile="off")
    step = build_training(replace(settings, run=run), alone, StartWeights())
    black = torch.zeros(n_batch, *step.model.image_shape, dtype=torch.uint8)
    step(0, 1.0, [Batch(black, np.arange(n_batch))])
    step.loss()  # waits for the device
