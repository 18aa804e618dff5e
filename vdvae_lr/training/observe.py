"""What a run shows of itself between steps: the bound on held-out images, what the latents do there, and pictures."""

from collections.abc import Iterator
from pathlib import Path

import torch

from vdvae_lr.datasets.loader import Batch, evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.evaluation.watch import watch_latents
from vdvae_lr.files.run_folder import IMAGES
from vdvae_lr.pictures.images import reconstructions, samples
from vdvae_lr.pictures.picture_grid import picture_grid, save_png
from vdvae_lr.training.held_out_record import bound_record, group_rate_curves, watch_record
from vdvae_lr.training.interruption import StopRequest
from vdvae_lr.training.run import Run
from vdvae_lr.training.step import autocast

_SAMPLE_TEMPERATURES = (1.0, 0.9, 0.8)


def evaluate(run: Run, stop: StopRequest) -> None:
    """The bound of the averaged weights on the held-out images, each exactly once, and what the latents do on the first
    of them; nothing at all when told to stop.
    """
    settings, world, training = run.settings.run, run.world, run.training
    count = min(len(run.held_out_images), settings.eval_examples or len(run.held_out_images))
    watched_count = min(count, settings.watch_examples)
    weights, average = training.optimiser.weights, training.optimiser.ema.average
    watched = None
    with weights.holding(average), autocast(world.device, training.precision):
        bound = evaluate_bound(training.model, _held_out(run, stop, count), seed=settings.seed, world=world)
        if stop.agreed(world):
            return  # some process left images out
        if watched_count:
            images = _held_out(run, stop, watched_count)
            watched = watch_latents(training.model, images, seed=settings.seed, world=world)
            if stop.agreed(world):
                return
    kind, split = ("test", "test") if settings.test_eval else ("eval", "validation")
    record = bound_record(bound) | (watch_record(watched) if watched else {})
    curves = group_rate_curves(kind, bound.group_rates, training.model.resolutions)
    run.log.write(kind, run.iteration, record, curves)
    run.display.say(
        f"step {run.iteration} · {split}, EMA weights, {bound.examples} images: "
        f"-ELBO {bound.negative_elbo:.4f} nats/dim ({bound.negative_elbo_bits_per_dim:.4f} bits/dim) "
        f"= rate {bound.rate:.4f} + distortion {bound.distortion:.4f}"
    )


def _held_out(run: Run, stop: StopRequest, count: int) -> Iterator[Batch]:
    """This process's share of the first `count` held-out images; the rest of it is left out when told to stop."""
    shards = evaluation_shards(count, run.settings.run.n_batch, run.world.rank, run.world.size)
    pin = run.world.device.type == "cuda"
    batches = evaluation_batches(run.held_out_images, shards, run.settings.data.num_workers, pin)
    return _until_stopped(run, stop, batches)


def _until_stopped(run: Run, stop: StopRequest, batches: Iterator[Batch]) -> Iterator[Batch]:
    """At least one batch, so that the processes, who meet at the end, have something to put together."""
    for number, batch in enumerate(batches):
        run.world.at(f"step {run.iteration}, evaluating batch {number}")
        yield batch
        if stop.signal is not None:
            return


def draw(run: Run) -> None:
    """Held-out images, their reconstructions, and samples at three temperatures, by the averaged weights."""
    run.world.at(f"step {run.iteration}, drawing pictures")
    run.world.on_main(lambda: _draw_here(run))


def _draw_here(run: Run) -> None:
    settings, training = run.settings.run, run.training
    count = min(settings.num_images_visualize, len(run.held_out_images))
    pixels = torch.from_numpy(run.held_out_images.read(range(count))).permute(0, 3, 1, 2).to(run.world.device)
    weights, average = training.optimiser.weights, training.optimiser.ema.average
    with weights.holding(average), autocast(run.world.device, training.precision):
        rows = reconstructions(training.model, pixels, seed=settings.seed)
        drawn = samples(training.model, count, _SAMPLE_TEMPERATURES, seed=settings.seed)
    labels = ["image", "reconstruction", *(f"sample, t = {t:g}" for t in _SAMPLE_TEMPERATURES)]
    save_png(picture_grid([*rows, *drawn], labels), picture_path(run))


def picture_path(run: Run) -> Path:
    """Where the picture of this iteration goes."""
    return run.folder / IMAGES / f"step-{run.iteration:08d}.png"
