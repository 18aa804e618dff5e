"""Compute gradients, updates, bounds and messages in one of several processes, for tests to compare.

`tests/training/test_processes.py` starts this file as several processes: `process_measurements.py RANK FOLDER`. The
same processes join one world after the other, because starting a process costs more than all that it computes.
"""

import sys
from dataclasses import asdict, astuple
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from recorded_events import watched
from torch import Tensor, distributed
from training_runs import fingerprint, tiny_pixels, tiny_settings

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sampler import TrainingOrder, evaluation_shards
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World
from vdvae_lr.training.loop import train
from vdvae_lr.training.optim import Optimiser
from vdvae_lr.training.step import TrainingStep
from vdvae_lr.training.weights import FlatWeights

WORLD_SIZES = (2, 3, 4)
TRAINING_SIZES = (1, 2, 4)  # numbers of processes that divide the four micro-batches of a step
N_BATCH, GLOBAL_BATCH, TRAINING_IMAGES = 2, 8, 12  # the second step crosses an epoch
HELD_OUT = 7  # in batches of two: the last of four batches is short, and three processes get unequal numbers of them
ALPHA = 0.7
DTYPES = {"float64": torch.float64, "float32": torch.float32}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "elbo": {"alpha_T": 0.0},
    "posterior latents": {"alpha_T": 1.0, "lr_latents": "posterior"},
    "prior latents": {"alpha_T": 1.0, "lr_latents": "prior"},
    "random reading": {"alpha_T": 1.0, "lr_reading": "random", "free_nats": 0.5},
}
GRAD_CLIP = 0.1
UPDATES: dict[str, dict[str, Any]] = {
    "as it is": {"grad_clip": 1e9, "skip_threshold": -1.0},
    "clipped": {"grad_clip": GRAD_CLIP, "skip_threshold": -1.0},
    "skipped": {"skip_threshold": 1e-9},
    "not finite on the last process": {"skip_threshold": -1.0},
    "scaled for float16": {"precision": "fp16", "skip_threshold": -1.0},
}
RUN_LENGTHS = (2, 6)  # no multiple of ten between them: there, processes exchange signals
TIMEOUT = timedelta(seconds=600)


def build_model(dtype: torch.dtype) -> VDVAE:
    """The tiny model with random weights everywhere, so that every path has an effect."""
    torch.manual_seed(0)
    model = VDVAE(tiny_settings().model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.encoder.register_forward_pre_hook(lambda module, arguments: (arguments[0].to(dtype),))  # a step reads float32
    return model.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_step(world: World, dtype: torch.dtype, **changes: Any) -> TrainingStep:
    """A step over four micro-batches, for any number of processes."""
    settings = tiny_settings(n_batch=N_BATCH, global_batch=GLOBAL_BATCH, warmup_iters=0, lr=0.01, **changes)
    precision = changes.get("precision", "fp32")
    model = build_model(dtype)
    optimiser = Optimiser(FlatWeights(model), settings.optimisation, loss_scaling=precision == "fp16")
    return TrainingStep(
        model,
        optimiser,
        settings.objective,
        world,
        n_batch=N_BATCH,
        micro_batches=settings.run.micro_batches(world.size),
        seed=0,
        precision=precision,
    )


def batches_of_step(world: World, step: int) -> list[Batch]:
    """The micro-batches of this process, in the order of a run."""
    pixels = tiny_pixels(TRAINING_IMAGES)
    order = TrainingOrder(TRAINING_IMAGES, GLOBAL_BATCH, N_BATCH, world.rank, world.size, seed=0)
    return [Batch(pixels[rows], rows, number, step, 0) for number, rows in order.micro_batches(step)]


def gradient(world: World, dtype: torch.dtype, objective: dict[str, Any]) -> Tensor:
    """The flat gradient (N,) that the optimiser gets: reduced, but not clipped yet."""
    training = build_step(world, dtype, **objective)
    found = []
    training.optimiser.step = lambda iteration, moving: found.append(  # type: ignore[method-assign]
        training.optimiser.weights.gradients.clone()
    )
    training(1, ALPHA, batches_of_step(world, 1))
    return found[0]


def update(world: World, name: str) -> dict[str, Tensor]:
    """The state of the optimiser before and after two steps."""
    changes = UPDATES[name]
    dtype = torch.float32 if "precision" in changes else torch.float64
    training = build_step(world, dtype, **changes)
    optimiser = training.optimiser
    before = optimiser.weights.values.data.clone()
    if name == "not finite on the last process" and world.rank == world.size - 1:
        draw = training.noise.draw

        def spoilt_draw(*name: int | str, first: int = 0) -> None:
            draw(*name, first=first)
            training.noise.posterior[0].fill_(torch.nan)

        training.noise.draw = spoilt_draw  # type: ignore[method-assign]
    for step in (1, 2):
        training(step, training.objective.alpha_at(step, 6), batches_of_step(world, step))
    return fingerprint(training) | {
        "before": before,
        "alpha": training._alpha.clone(),
        "gradient_norm": optimiser.gradient_norm,
        "skipped": optimiser.skipped,
        "consecutive_skips": optimiser.consecutive_skips,
        "loss_scale": torch.tensor(optimiser.scaler.get_scale()),
    }


def bound(world: World, dtype: torch.dtype) -> dict[str, Tensor]:
    """The bound of seven examples, and the examples that this process read."""
    pixels = tiny_pixels(HELD_OUT, seed=1)
    shards = evaluation_shards(HELD_OUT, N_BATCH, world.rank, world.size)
    batches = [Batch(pixels[rows], rows, 0, 0, 0) for rows in shards]
    found = evaluate_bound(build_model(dtype).eval(), batches, seed=3, world=world)
    *scalars, group_rates = astuple(found)
    rows = [torch.from_numpy(rows) for rows in shards]
    return {
        "examples": torch.tensor(found.examples),
        "read": torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64),
        "numbers": torch.tensor([*scalars, *group_rates], dtype=torch.float64),
    }


def step_traffic(world: World) -> list[dict[str, list[str]]]:
    """What each of two steps sends, and where it waits."""
    training = build_step(world, torch.float32, **OBJECTIVES["prior latents"])
    seen = []
    for step in range(2):
        batches = batches_of_step(world, step)
        with watched() as traffic:
            training(step, ALPHA, batches)
        seen.append(asdict(traffic))
    return seen


def run_traffic(world: World, folder: Path, iterations: int) -> dict[str, list[str]]:
    """What a whole run sends, and where it waits. The run prints, evaluates, draws and saves only at its end."""
    never = dict.fromkeys(("iters_per_print", "iters_per_eval", "iters_per_images", "iters_per_save"), 1000)
    places = {"data_root": str(folder / "images"), "save_dir": str(folder / f"run-{iterations}"), "desc": "run"}
    with watched() as traffic:
        assert train(tiny_settings(**never, **places, iters=iterations), world) == 0
    return asdict(traffic)


def measure(world: World, folder: Path) -> dict[str, Any]:
    """All measurements for a world of this size."""
    found: dict[str, Any] = {"bounds": {name: bound(world, dtype) for name, dtype in DTYPES.items()}}
    if world.size in TRAINING_SIZES:
        found["gradients"] = {
            f"{objective}, {dtype}": gradient(world, DTYPES[dtype], OBJECTIVES[objective])
            for objective in OBJECTIVES
            for dtype in DTYPES
        }
        found["updates"] = {name: update(world, name) for name in UPDATES}
    if world.size == 2:
        found["steps"] = step_traffic(world)
        found["runs"] = [run_traffic(world, folder, iterations) for iterations in RUN_LENGTHS]
    return found


def main(rank: int, folder: Path) -> None:
    """Join each world that this process belongs to, and save its measurements there."""
    torch.set_num_threads(1)
    for size in WORLD_SIZES:
        if rank < size:
            place = f"file://{folder / f'meeting-{size}'}"
            distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=size, timeout=TIMEOUT)
            torch.save(measure(World(rank, size, torch.device("cpu")), folder), folder / f"{size}-{rank}.pt")
            distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
