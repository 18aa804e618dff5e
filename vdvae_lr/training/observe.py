"""What a run shows of itself between steps: the bound on held-out images, what the latents do there, and pictures.

docs/logged_numbers.md explains the numbers of the records.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vdvae_lr.datasets.loader import Batch, evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.evaluation.activity import ActiveUnits
from vdvae_lr.evaluation.batches import posterior_passes
from vdvae_lr.evaluation.bound import Bound, evaluate_bound
from vdvae_lr.evaluation.mutual_information import mixture_information_nats
from vdvae_lr.evaluation.watch import WatchedLatents, watch_latents
from vdvae_lr.files.run_folder import IMAGES
from vdvae_lr.pictures.images import reconstructions, samples
from vdvae_lr.pictures.picture_grid import picture_grid, save_png
from vdvae_lr.training.interruption import StopRequest
from vdvae_lr.training.metrics import LoggedValue
from vdvae_lr.training.run import Run
from vdvae_lr.training.step import TrainingStep, autocast

_SAMPLE_TEMPERATURES = (1.0, 0.9, 0.8)


def evaluate(run: Run, stop: StopRequest) -> None:
    """Measure the averaged weights: the bound on the held-out images, and what the latents do on the first of them.

    Each image counts exactly once. If the run is told to stop meanwhile, nothing is written.
    """
    run_settings, world, step = run.settings.run, run.world, run.step
    count = min(len(run.held_out_images), run_settings.eval_examples or len(run.held_out_images))
    watched_count = min(count, run_settings.watch_examples)
    watched = None
    with _averaged_weights(step):
        bound = evaluate_bound(step.model, _held_out(run, stop, count), seed=run_settings.seed, world=world)
        if stop.agreed(world):
            return  # some process left images out
        if watched_count:
            images = _held_out(run, stop, watched_count)
            watched = watch_latents(step.model, images, seed=run_settings.seed, world=world)
            if stop.agreed(world):
                return
    kind, split = ("test", "test") if run_settings.test_eval else ("eval", "validation")
    record = _bound_record(bound) | (_watch_record(watched) if watched else {})
    first = run.log.first(kind)
    run.log.write(kind, run.iteration, record, group_rate_curves(kind, bound.group_rates, step.model.resolutions))
    run.display.say(
        f"step {run.iteration} · {split}, EMA weights, {bound.examples} images: "
        f"-ELBO {bound.negative_elbo:.4f} nats/dim ({bound.negative_elbo_bits_per_dim:.4f} bits/dim) "
        f"= rate {bound.rate:.4f} + distortion {bound.distortion:.4f}{_price(bound, first)}"
    )


@contextmanager
def _evaluating(step: TrainingStep) -> Iterator[None]:
    """Inside, the model computes in evaluation mode and in the run's precision."""
    step.model.eval()
    try:
        with autocast(step.world.device, step.precision):
            yield
    finally:
        step.model.train()


@contextmanager
def _averaged_weights(step: TrainingStep) -> Iterator[None]:
    """Inside, the model also computes with the averaged weights."""
    with step.optimiser.weights.holding(step.optimiser.ema.average), _evaluating(step):
        yield


@torch.inference_mode()
def held_out_information(run: Run) -> float:
    """Mutual information of held-out images and their latents, by mixtures of one batch each, in nats/dim.

    It is of the weights before averaging. A batch's own images make its mixture, so ln(n_batch) is the ceiling.
    """
    run_settings, step = run.settings.run, run.step
    count = min(len(run.held_out_images), run_settings.eval_examples or len(run.held_out_images))
    found = torch.zeros(2, dtype=torch.float64, device=run.world.device)
    with _evaluating(step):
        images = _held_out(run, StopRequest(), count)
        for seen in posterior_passes(step.model, images, run_settings.seed, reencoding=True):
            numbers = np.asarray(seen.examples)
            parts = mixture_information_nats(step.model, seen.passed, numbers, iter([(numbers, seen.levels)]))
            found += torch.stack([parts.sum(), torch.tensor(float(len(numbers))).to(parts)])
    total, measured = run.world.all_reduce_sum_(found).tolist()
    return float(total / measured / step.model.dimensions)


def _price(bound: Bound, first: tuple[int, Mapping[str, Any]] | None) -> str:
    """What has changed since the first evaluation, in words; empty if this is it, or that had other images."""
    if first is None or first[1].get("examples") != bound.examples:
        return ""
    iteration, start = first
    rate, distortion = start.get("rate_nats_per_dim"), start.get("distortion_nats_per_dim")
    if rate is None or distortion is None:  # not finite
        return ""
    change = bound.negative_elbo - rate - distortion
    return (
        f"; since step {iteration}: -ELBO {change:+.4f} ({100 * change / abs(rate + distortion):+.2f}%) "
        f"= rate {bound.rate - rate:+.4f} and distortion {bound.distortion - distortion:+.4f}"
    )


def _held_out(run: Run, stop: StopRequest, count: int) -> Iterator[Batch]:
    """This process's share of the first `count` held-out images; when told to stop, it ends early.

    It has at least one batch: the processes meet at the end, and each must have something to put together.
    """
    shards = evaluation_shards(count, run.settings.run.images_at_once, run.world.rank, run.world.size)
    pin = run.world.device.type == "cuda"
    batches = evaluation_batches(run.held_out_images, shards, run.settings.data.num_workers, pin)
    for number, batch in enumerate(batches):
        run.world.at(f"step {run.iteration}, evaluating batch {number}")
        yield batch
        if stop.signal is not None:
            return


def _bound_record(bound: Bound) -> dict[str, LoggedValue]:
    return {
        "examples": bound.examples,
        "negative_elbo_nats_per_dim": bound.negative_elbo,
        "negative_elbo_bits_per_dim": bound.negative_elbo_bits_per_dim,
        "negative_elbo_standard_error_nats_per_dim": bound.standard_error,
        "rate_nats_per_dim": bound.rate,
        "distortion_nats_per_dim": bound.distortion,
        "group_rates_nats_per_dim": list(bound.group_rates),
    }


def _watch_record(watched: WatchedLatents) -> dict[str, LoggedValue]:
    """What the latents do; null if there were too few images."""
    recovered, own = watched.recovered_information, watched.information_from_samples
    latents, channels = watched.active_latents, watched.active_channels
    return {
        "watched_examples": watched.images,
        "recovered_information_nats_per_dim": recovered.value,
        "recovered_information_standard_error_nats_per_dim": recovered.standard_error,
        "information_from_samples_nats_per_dim": own.value,
        "information_from_samples_standard_error_nats_per_dim": own.standard_error,
        "active_latents_share": latents.share() if latents else None,
        "active_channels_share": channels.share() if channels else None,
        "group_active_latents_shares": _group_shares(latents) if latents else None,
        "group_active_channels_shares": _group_shares(channels) if channels else None,
    }


def _group_shares(found: ActiveUnits) -> list[float]:
    return [found.share([group]) for group in range(len(found.units))]


def group_rate_curves(kind: str, rates: Sequence[float], resolutions: Sequence[int]) -> dict[str, float]:
    """The rate of every latent group, by the name of its curve. Groups are counted from 0, the coarsest."""
    digits = max(2, len(str(len(rates) - 1)))  # TensorBoard sorts names as text
    pairs = enumerate(zip(rates, resolutions, strict=True))
    return {f"{kind}_group_rate/{group:0{digits}}_{side}x{side}": rate for group, (rate, side) in pairs}


def draw(run: Run) -> None:
    """Draw held-out images, their reconstructions, and samples at three temperatures, by the averaged weights."""
    run.world.at(f"step {run.iteration}, drawing pictures")
    run.world.on_main(lambda: _draw_here(run))


def _draw_here(run: Run) -> None:
    run_settings, step = run.settings.run, run.step
    count = min(run_settings.num_images_visualize, len(run.held_out_images))
    pixels = torch.from_numpy(run.held_out_images.read(range(count))).permute(0, 3, 1, 2).to(run.world.device)
    with _averaged_weights(step):
        rows = reconstructions(step.model, pixels, seed=run_settings.seed)
        drawn = samples(step.model, count, _SAMPLE_TEMPERATURES, seed=run_settings.seed)
    labels = ["image", "reconstruction", *(f"sample, t = {t:g}" for t in _SAMPLE_TEMPERATURES)]
    path = picture_path(run)
    save_png(picture_grid([*rows, *drawn], labels), path)
    run.log.picture(run.iteration, path)


def picture_path(run: Run) -> Path:
    """Where the picture of this iteration goes."""
    return run.folder / IMAGES / f"step-{run.iteration:08d}.png"
