"""A run from its first iteration, or from its last checkpoint, to its end."""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import torch

from vdvae_lr.datasets.catalogue import open_splits
from vdvae_lr.datasets.loader import Batch, evaluation_batches, training_batches
from vdvae_lr.datasets.sampler import TrainingOrder, evaluation_shards
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.distributed import World
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.evaluation.images import reconstructions, samples
from vdvae_lr.evaluation.picture_grid import picture_grid, save_png
from vdvae_lr.training.build import build_training, find_start_weights, micro_batches
from vdvae_lr.training.checkpoint import CheckpointFolder, Position, restore
from vdvae_lr.training.display import Display
from vdvae_lr.training.interruption import StopRequest, listening_for_signals
from vdvae_lr.training.metrics import RunLog, Speedometer, bound_record, console_line, read_line
from vdvae_lr.training.run_folder import prepare_run_folder
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import TrainingStep, autocast

_SKIP_CHECK_ITERATIONS = 50  # how often the host asks the device whether updates are still being made
_SAMPLE_TEMPERATURES = (1.0, 0.9, 0.8)
_AGREEMENT_ITERATIONS = 10  # how often several processes ask each other whether to stop


@dataclass
class Run:
    """A run's parts and its place; `train` drives it."""

    settings: Settings
    world: World
    folder: Path
    training: TrainingStep
    train_images: ImageSource
    held_out_images: ImageSource
    checkpoints: CheckpointFolder
    display: Display
    log: RunLog
    iteration: int = 0
    bad_images: int = 0  # that this process replaced
    speed: Speedometer = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.speed = Speedometer(self.iteration, self.settings.run.iters, self.global_batch)

    @property
    def global_batch(self) -> int:
        """Images of one iteration over all processes."""
        return micro_batches(self.settings.run, self.world.size) * self.settings.run.n_batch


def train(settings: Settings, world: World) -> int:
    """Run to the end, or until a signal; the exit code for the shell. With `test_eval`, only evaluate where it stands.

    Raises:
        InputError: something a person must mend; nothing that was there is lost.
    """
    run = _prepare(settings, world)
    try:
        with run.display, listening_for_signals() as stop:
            if settings.run.test_eval:
                _evaluate(run)
                return 0
            _iterate(run, stop)
            if stop.signal is not None and run.iteration < settings.run.iters:
                without = " without --fresh" if settings.run.fresh else ""
                run.display.say(
                    f"Stopped by {stop.signal.name} after step {run.iteration} and saved; "
                    f"run the same command again{without} to go on."
                )
                return stop.exit_code
            run.display.say(f"Finished: {run.folder}")
            return 0
    finally:
        run.log.close()


def _prepare(settings: Settings, world: World) -> Run:
    """Everything that can go wrong for a person's reasons goes wrong here, before any work."""
    run, config = settings.run, settings.model
    count = micro_batches(run, world.size)
    settings = replace(settings, run=replace(run, global_batch=count * run.n_batch))  # for good: 0 is this many now
    start = find_start_weights(run, config)
    splits = open_splits(settings.data, config.image_size, config.image_channels)
    TrainingOrder(len(splits.train), count * run.n_batch, run.n_batch, world.rank, world.size, run.seed)
    folder, notice = world.on_main(lambda: prepare_run_folder(settings)) or (Path(run.save_dir) / run.name, None)
    training = build_training(settings, world, start)
    checkpoints = CheckpointFolder(folder, run.keep_checkpoints, run.iters_per_ckpt)
    found = checkpoints.newest_sound()
    position = Position(0, {})
    if found is not None:
        path, state, complaints = found
        position = restore(training, path, state)
        notice = " ".join([*complaints, f"Going on from {path}."])
    if world.highest(position.iteration) != -world.highest(-position.iteration):
        raise InputError(f"the processes do not see the same checkpoints in {folder}; choose a --save_dir they share.")
    display = Display(shown=world.is_main, done=position.iteration, iterations=run.iters)
    if notice:
        display.say(notice)
    log = RunLog(folder if world.is_main else None, position.iteration)
    held_out = splits.test if run.test_eval else splits.valid
    return Run(
        settings, world, folder, training, splits.train, held_out, checkpoints, display, log,
        position.iteration, int(position.loop.get("bad_images", 0)) if world.is_main else 0,
    )  # fmt: skip


def _iterate(run: Run, stop: StopRequest) -> None:
    settings, world = run.settings.run, run.world
    batches = _training_batches(run)
    local = micro_batches(settings, world.size) // world.size
    while run.iteration < settings.iters:
        alpha = run.settings.objective.alpha_at(run.iteration, settings.iters)
        run.training(run.iteration, alpha, _counted(run, islice(batches, local)))
        run.iteration += 1
        run.display.advance(run.iteration)
        if _due(run, settings.iters_per_print):
            _report(run, alpha)
        if run.iteration % _SKIP_CHECK_ITERATIONS == 0:
            _check_skips(run)
        if _due(run, settings.iters_per_eval):
            _aside(run, "evaluating", _evaluate)
        if _due(run, settings.iters_per_images):
            _aside(run, "drawing pictures", _draw)
        stopping = _agreed_to_stop(run, stop)
        if _due(run, settings.iters_per_save) or _snapshot_due(run) or stopping:
            _aside(run, "saving", _save)
        if stopping:
            return


def _due(run: Run, every: int) -> bool:
    return run.iteration % every == 0 or run.iteration == run.settings.run.iters


def _snapshot_due(run: Run) -> bool:
    every = run.settings.run.iters_per_ckpt
    return every > 0 and run.iteration % every == 0


def _training_batches(run: Run) -> Iterator[Batch]:
    settings, world = run.settings.run, run.world
    order = TrainingOrder(
        len(run.train_images), run.global_batch, settings.n_batch, world.rank, world.size, settings.seed
    )
    pin = world.device.type == "cuda"
    return training_batches(run.train_images, order, run.iteration, run.settings.data.num_workers, pin)


def _counted(run: Run, batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        run.bad_images += batch.bad_images
        yield batch


def _report(run: Run, alpha: float) -> None:
    line = read_line(run.training, run.iteration, alpha, run.world.total(run.bad_images))
    run.log.write("train", run.iteration, line.as_record())
    run.display.say(console_line(line, run.settings.run.iters, run.speed))


def _check_skips(run: Run) -> None:
    optimiser, limit = run.training.optimiser, run.settings.optimisation.max_consecutive_skips
    skips = int(optimiser.consecutive_skips)
    if skips >= limit:
        raise InputError(
            f"the last {skips} updates were skipped (gradient norm {float(optimiser.gradient_norm):.4g}, "
            f"skip_threshold {run.settings.optimisation.skip_threshold:g}); lower --lr or --alpha_T, raise "
            f"--skip_threshold, or use --precision fp32, in a new run (--desc NAME) that starts from this one's last "
            f"checkpoint (--pretrained {run.folder}) or as this one did."
        )


def _aside(run: Run, doing: str, action: Callable[[Run], None]) -> None:
    """Do something that is not training, and leave its time out of the speed."""
    run.display.advance(run.iteration, doing)
    start = time.monotonic()
    action(run)
    run.speed.exclude(time.monotonic() - start)
    run.display.advance(run.iteration)


def _evaluate(run: Run) -> None:
    """The bound of the averaged weights on the held-out images, each exactly once."""
    settings, world, training = run.settings.run, run.world, run.training
    count = min(len(run.held_out_images), settings.eval_examples or len(run.held_out_images))
    shards = evaluation_shards(count, settings.n_batch, world.rank, world.size)
    batches = evaluation_batches(
        run.held_out_images, shards, run.settings.data.num_workers, world.device.type == "cuda"
    )
    weights, average = training.optimiser.weights, training.optimiser.ema.average
    with weights.holding(average), autocast(world.device, training.precision):
        bound = evaluate_bound(training.model, batches, seed=settings.seed, world=world)
    kind, split = ("test", "test") if settings.test_eval else ("eval", "validation")
    run.log.write(kind, run.iteration, bound_record(bound))
    run.display.say(
        f"step {run.iteration} · {split}, EMA weights, {bound.examples} images: "
        f"-ELBO {bound.negative_elbo:.4f} nats/dim ({bound.negative_elbo_bits_per_dim:.4f} bits/dim) "
        f"= rate {bound.rate:.4f} + distortion {bound.distortion:.4f}"
    )


def _draw(run: Run) -> None:
    """Held-out images, their reconstructions, and samples at three temperatures, by the averaged weights."""
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
    save_png(picture_grid([*rows, *drawn], labels), run.folder / "images" / f"step-{run.iteration:08d}.png")


def _save(run: Run) -> None:
    run.training.gather_sums()
    position = Position(run.iteration, {"bad_images": run.world.total(run.bad_images)})
    settings = run.settings
    run.world.on_main(lambda: run.checkpoints.save(run.training, position, settings.flat(), settings.data.dataset))


def _agreed_to_stop(run: Run, stop: StopRequest) -> bool:
    """Whether any process was told to stop; several processes ask each other every few iterations only."""
    if run.world.size > 1 and run.iteration % _AGREEMENT_ITERATIONS:
        return False
    number = run.world.highest(stop.signal or 0)
    if number:
        stop.signal = signal.Signals(number)
    return number > 0
