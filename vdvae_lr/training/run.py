"""A run's parts, and how they are put together: everything a person can get wrong goes wrong here, before any work."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from vdvae_lr.datasets.catalogue import open_splits
from vdvae_lr.datasets.inventory import Inventory, differences, inventory_lines, inventory_number, take_inventory
from vdvae_lr.datasets.loader import check_readers
from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.errors import InputError
from vdvae_lr.hub.sources import WeightSource
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training, find_start_weights
from vdvae_lr.training.checkpoint import BackgroundSaver, CheckpointFolder, restore
from vdvae_lr.training.display import Display
from vdvae_lr.training.interruption import ending_at_ctrl_c
from vdvae_lr.training.metrics import RunLog
from vdvae_lr.training.run_folder import record_settings, run_folder
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.snapshot import Position
from vdvae_lr.training.speed import CoreWatch, Speedometer
from vdvae_lr.training.step import TrainingStep

NEVER = 2**62
"""More steps than any run has."""


@dataclass
class Run:
    """A run's parts and its place; `train` drives it."""

    settings: Settings
    world: World
    folder: Path
    training: TrainingStep
    order: TrainingOrder
    inventory: Inventory
    train_images: ImageSource
    held_out_images: ImageSource
    saver: BackgroundSaver
    display: Display
    log: RunLog
    iteration: int = 0
    bad_images: int = 0  # that this process replaced
    reading_error: InputError | None = None  # that this process met; it reads no more
    reading_failed_at: int = NEVER  # the step that it met it in
    bad_images_before: dict[int, int] = field(default_factory=dict)  # the steps since the processes last met
    saved_at: int = field(init=False)
    speed: Speedometer = field(init=False)
    cores: CoreWatch = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock; what the run goes on from is saved."""
        self.saved_at = self.iteration
        self.speed = Speedometer(self.settings.run.iters, self.order.global_batch)
        self.cores = CoreWatch(torch.get_num_threads() if self.world.device.type == "cpu" else 1)

    def due(self, every: int) -> bool:
        """Whether something is done at this iteration that is done at every so many and at the end."""
        return self.iteration % every == 0 or self.iteration == self.settings.run.iters


@contextmanager
def prepared_run(settings: Settings, world: World, pretrained: WeightSource | None) -> Iterator[Run]:
    """A run at its beginning, or where its last checkpoint left it. It owns its folder until the block ends.

    `pretrained` is what `settings.run.pretrained` stands for, if that is known already.

    Raises:
        InputError: something a person must mend; nothing that was there is lost.
    """
    run, config = settings.run, settings.model
    global_batch = run.micro_batches(world.size) * run.n_batch
    # Resolve 0 once, so that settings.json records the number used.
    settings = replace(settings, run=replace(run, global_batch=global_batch))
    splits = open_splits(settings.data, config.image_size, config.image_channels)
    inventory = take_inventory(splits)
    if not world.agree(inventory_number(inventory)):
        raise InputError(
            "the processes do not find the same images; let --data_root name a folder with the same content for all."
        )
    start = _start_weights(settings, world, pretrained)
    order = TrainingOrder(len(splits.train), global_batch, run.n_batch, world.rank, world.size, run.seed)
    with ExitStack() as held:
        entered = world.on_main(lambda: held.enter_context(run_folder(settings)))
        folder, notice = entered or (Path(run.save_dir) / run.name, None)
        training = build_training(settings, world, start)
        checkpoints = CheckpointFolder(folder, run.keep_checkpoints, run.iters_per_ckpt)
        position, notices = _found_position(checkpoints, training)
        notices += _changed_images(settings, folder, position, inventory)
        notices += check_readers(settings.data.num_workers, splits.train)
        world.on_main(lambda: record_settings(folder, settings))
        display = Display(shown=world.is_main, done=position.iteration, iterations=run.iters, bar=not world.relayed)
        for line in [*([notice] if notice else []), *notices, *inventory_lines(splits)]:
            display.say(line)
        saver, log = BackgroundSaver(checkpoints), RunLog(folder if world.is_main else None, position.iteration)
        log.note("images", position.iteration, inventory)
        held.callback(saver.close)
        held.callback(log.close)
        bad_images = int(position.loop.get("bad_images", 0)) if world.is_main else 0
        held_out = splits.test if run.test_eval else splits.valid
        yield Run(
            settings, world, folder, training, order, inventory, splits.train, held_out, saver, display, log,
            position.iteration, bad_images,
        )  # fmt: skip


def _start_weights(settings: Settings, world: World, pretrained: WeightSource | None) -> StartWeights:
    """What a new run starts from; a run that goes on needs none of it.

    The main process fetches first. On a file system that all share, the others then find what it fetched; elsewhere one
    process of each machine fetches while the rest wait.
    """
    run = settings.run
    goes_on = not run.fresh and bool(CheckpointFolder(Path(run.save_dir) / run.name, 1, 0).existing())
    if world.highest(goes_on):
        return StartWeights()
    find = partial(find_start_weights, run, settings.weights, settings.model, pretrained)
    with ending_at_ctrl_c():
        found = world.patiently(lambda: find() if world.is_main else None, "fetching weights on process 0")
        return world.patiently(lambda: found or find(), "fetching weights")


def _found_position(checkpoints: CheckpointFolder, training: TrainingStep) -> tuple[Position, list[str]]:
    """Go back to the newest sound checkpoint, if there is one; where that is, and what a person should know of it."""
    world = training.world
    found = checkpoints.newest_sound()
    position, notices = Position(0, {}, world.size), []
    if found is not None:
        path, state, complaints = found
        position = restore(training, path, state)
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


def _changed_images(settings: Settings, folder: Path, position: Position, inventory: Inventory) -> list[str]:
    """What a person should know of images that are not those of the checkpoint.

    Raises:
        InputError: the run would train on with them, and nobody said that it shall.
    """
    changed = differences(position.images, inventory) if position.images else []
    if not changed:
        return []
    run = settings.run
    trains = position.iteration < run.iters and not run.test_eval
    what = f"the images are not those that run {folder} had at step {position.iteration:,} ({'; '.join(changed)})"
    if trains and not run.accept_changed_images:
        raise InputError(
            f"{what}: put those back or name their folder with --data_root, choose another --desc, or go on with these "
            "by --accept_changed_images."
        )
    after = "; from here the run differs from an unbroken one" if trains else ""
    return [f"T{what[1:]}{after}."]
