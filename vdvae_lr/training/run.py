"""A run's parts, and how they are put together: whatever a person can get wrong fails here, before any work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from vdvae_lr.datasets.catalogue import ON_THE_HUB, open_splits_together
from vdvae_lr.datasets.inventory import Inventory, differences, inventory_lines, inventory_number, take_inventory
from vdvae_lr.datasets.loader import Batch, check_readers, training_batches
from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.run_folder import CHECKPOINTS, complete_checkpoints
from vdvae_lr.hub.sources import WeightSource
from vdvae_lr.losses import expectation
from vdvae_lr.model.noise import noise_key
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training, find_start_weights
from vdvae_lr.training.checkpoint import BackgroundSaver, CheckpointFolder, Position, Snapshot, restore
from vdvae_lr.training.claimed_folder import claimed_folder, folder_of, record_settings
from vdvae_lr.training.compiling import choose_compiled, tries_compiling
from vdvae_lr.training.console import CoreWatch, Display, Speedometer
from vdvae_lr.training.interruption import ending_at_ctrl_c
from vdvae_lr.training.kernels import choose_kernel
from vdvae_lr.training.lagging import EncoderFirst
from vdvae_lr.training.metrics import RunLog
from vdvae_lr.training.micro_batch import with_micro_batches
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import TrainingStep
from vdvae_lr.training.trackers import TrackedRun, Trackers, check_installed


@dataclass
class Run:
    """A run's parts and its place; `train` drives it."""

    settings: Settings
    world: World
    folder: Path
    step: TrainingStep
    batches: Iterator[Batch]
    """This process's micro-batches from `iteration` on, without end."""
    held_out_images: ImageSource
    saver: BackgroundSaver
    display: Display
    log: RunLog
    iteration: int
    """Iterations done."""
    bad_images: int
    """Images that this process replaced by others."""
    encoder_first: EncoderFirst | None
    """Where Lagging VAE's schedule stands, in a run that has one."""
    encoder_batches: Iterator[Batch] | None
    """The micro-batches of the encoder's turns in it, without end."""
    check_iters: int
    """Iterations between measurements of the held-out images' mutual information, in a run that has that schedule."""
    before: dict[int, tuple[int, EncoderFirst | None]] = field(default_factory=dict)
    """`bad_images` and `encoder_first` at the beginning of each step since the processes last met."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.resumed_at = self.saved_at = self.iteration  # the run goes on from there
        self.speed = Speedometer(self.settings.run.iters, self.settings.run.global_batch)
        self.cores = CoreWatch(torch.get_num_threads() if self.world.device.type == "cpu" else 1)

    def due(self, every: int) -> bool:
        """Whether this iteration is a multiple of `every`, or the last one."""
        return self.iteration % every == 0 or self.iteration == self.settings.run.iters


@contextmanager
def prepared_run(settings: Settings, world: World, pretrained: WeightSource | None) -> Iterator[Run]:
    """A run at its beginning, or where its last checkpoint left it. It owns its folder until the block ends.

    `pretrained` and errors are as for `train`.
    """
    world.on_main(lambda: check_installed(settings.run.track))
    settings.run.micro_batches(world.size)  # raises InputError before any work
    with ending_at_ctrl_c():
        splits = open_splits_together(settings.data, settings.model.image_size, settings.model.image_channels, world)
    inventory = take_inventory(splits)
    if not world.agree(inventory_number(inventory)):
        raise InputError(
            "the processes do not find the same images; let --data_root name a folder with the same content for all."
        )
    start = _start_weights(settings, world, pretrained)
    settings, tried = with_micro_batches(settings, world)
    run_settings = settings.run
    global_batch, seed, workers = run_settings.global_batch, run_settings.seed, settings.data.num_workers
    place = (len(splits.train), global_batch, run_settings.images_at_once, world.rank, world.size)
    order = TrainingOrder(*place, seed)
    folder = folder_of(run_settings)
    with ExitStack() as held:
        notice = world.on_main(lambda: held.enter_context(claimed_folder(settings)))
        step = build_training(settings, world, start)
        checkpoints = CheckpointFolder(folder, run_settings.keep_checkpoints, run_settings.iters_per_ckpt)
        position, notices = _found_position(checkpoints, step)
        notices += _changed_images(settings, position, inventory)
        notices += check_readers(workers, splits.train)
        notices += _training_notices(settings, step, position.iteration)
        if run_settings.compile == "on" or tries_compiling(run_settings, world):
            # The compiler is for steps alone: evaluation and pictures would compile six times as many graphs.
            held.enter_context(torch.compiler.set_stance("force_eager"))
        world.on_main(lambda: record_settings(settings))
        iteration = position.iteration
        display = Display(shown=world.is_main, done=iteration, iterations=run_settings.iters, bar=not world.relayed)
        for line in filter(None, [notice, tried, *notices, *inventory_lines(splits)]):
            display.say(line)
        trackers = _trackers(settings, iteration, display) if world.is_main else None
        if trackers is not None:  # pushed first, so that it ends last: nothing on the disk waits for a tracker
            held.push(lambda kind, *_: trackers.close(failed=kind is not None))
        saver = BackgroundSaver(checkpoints, Snapshot(step, settings, inventory))
        log = RunLog(folder if world.is_main else None, iteration, trackers)
        log.note("images", iteration, inventory)
        held.callback(saver.close)
        held.callback(log.close)
        batches = training_batches(splits.train, order, iteration, workers, world.device.type == "cuda")
        held_out = splits.test if run_settings.test_eval else splits.valid
        bad_images = position.bad_images if world.is_main else 0
        first, ahead = None, None
        if settings.optimisation.encoder_steps:
            first = EncoderFirst(**position.encoder_first or {})
            other = TrainingOrder(*place, noise_key("encoder", seed))
            ahead = training_batches(splits.train, other, first.encoder_updates, workers, world.device.type == "cuda")
        check_iters = settings.optimisation.encoder_check_iters or max(1, len(splits.train) // global_batch)
        shown = (saver, display, log)
        lagging = (first, ahead, check_iters)
        yield Run(settings, world, folder, step, batches, held_out, *shown, iteration, bad_images, *lagging)


def _training_notices(settings: Settings, step: TrainingStep, iteration: int) -> list[str]:
    """Settle what is tried out before a run trains. Returns sentences about how it trains; some may be empty."""
    run_settings, prior = settings.run, step.model.standard_prior
    if run_settings.test_eval:
        return []
    at = settings.optimisation.lr_at
    notices = expectation.notices(settings.objective, run_settings.iters, at, standard_prior=prior)
    if run_settings.kernels == "auto":
        notices.append(choose_kernel(step.model, step.n_batch, step.world))
    if tries_compiling(run_settings, step.world):
        notices.append(choose_compiled(step, run_settings.iters - iteration))
    return notices


def _trackers(settings: Settings, iteration: int, display: Display) -> Trackers:
    """The run's trackers. Their settings are without the passwords that an address may hold."""
    values = settings.flat().items()
    config = {name: without_secrets(value) if isinstance(value, str) else value for name, value in values}
    run_settings = settings.run
    run = TrackedRun(folder_of(run_settings), run_settings.track_project, run_settings.name, config, iteration)
    return Trackers(run_settings.track, run, display.say)


def _start_weights(settings: Settings, world: World, pretrained: WeightSource | None) -> StartWeights:
    """What a new run starts from. A run that goes on needs no such weights."""
    goes_on = not settings.run.fresh and bool(complete_checkpoints(folder_of(settings.run) / CHECKPOINTS))
    if world.highest(goes_on):
        return StartWeights()
    with ending_at_ctrl_c():
        return world.main_first(partial(find_start_weights, settings, pretrained), "fetching weights")


def _found_position(checkpoints: CheckpointFolder, step: TrainingStep) -> tuple[Position, list[str]]:
    """Go back to the newest sound checkpoint, if there is one. Returns the run's position, and sentences about it."""
    world = step.world
    found = checkpoints.newest_sound()
    position, notices = Position(processes=world.size), []
    if found is not None:
        path, state, complaints = found
        position = restore(step, path, state)
        notices = [*complaints, f"Going on from {path}."]
    if not world.agree(position.iteration):
        raise InputError(
            f"the processes do not see the same checkpoints in {checkpoints.folder}; choose a --save_dir they share."
        )
    if position.processes != world.size:
        notices.append(
            f"It was saved by {position.processes} process(es) and goes on with {world.size}: the same images and "
            "noise, but sums round differently, so from here the run is no longer equal bit for bit to an unbroken one."
        )
    return position, notices


def _changed_images(settings: Settings, position: Position, inventory: Inventory) -> list[str]:
    """A sentence if the images are not those of the checkpoint.

    Raises InputError if the run would train on with them, and --accept_changed_images was not given.
    """
    changed = differences(position.images, inventory) if position.images else []
    if not changed:
        return []
    run_settings = settings.run
    trains = position.iteration < run_settings.iters and not run_settings.test_eval
    what = (
        f"the images are not those that run {folder_of(run_settings)} had at step {position.iteration:,} "
        f"({'; '.join(changed)})"
    )
    if trains and not run_settings.accept_changed_images:
        on_hub = settings.data.dataset == ON_THE_HUB
        back = "name their commit with --hub_revision" if on_hub else "name their folder with --data_root"
        raise InputError(
            f"{what}: put those back or {back}, choose another --desc, or go on with these by --accept_changed_images."
        )
    after = "; from here the run differs from an unbroken one" if trains else ""
    return [f"T{what[1:]}{after}."]
