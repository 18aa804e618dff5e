"""A run from its first iteration, or from its last checkpoint, to its end."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

from vdvae_lr.datasets.loader import Batch, training_batches
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import exists
from vdvae_lr.hub.sources import WeightSource
from vdvae_lr.processes.world import World
from vdvae_lr.training.interruption import StopRequest, listening_for_signals
from vdvae_lr.training.metrics import console_line, read_line
from vdvae_lr.training.observe import draw, evaluate, picture_path
from vdvae_lr.training.run import NEVER, Run, prepared_run
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.snapshot import Position

_SKIP_CHECK_ITERATIONS = 50  # how often the host asks the device whether updates are still being made
_AGREEMENT_ITERATIONS = 10  # how often several processes ask each other whether to stop


def train(settings: Settings, world: World, pretrained: WeightSource | None = None) -> int:
    """Run to the end, or until a signal; returns the exit code for the shell.

    With `test_eval`, only evaluate the weights that the run has, or would start from.

    Args:
        settings: the run.
        world: the processes.
        pretrained: what `settings.run.pretrained` stands for, if that is known already.

    Raises:
        InputError: something a person must mend; nothing that was there is lost.
    """
    with listening_for_signals() as stop, prepared_run(settings, world, pretrained) as run, run.display:
        if settings.run.test_eval:
            evaluate(run, stop)
            return _end(run, stop, "")
        finished = _iterate(run, stop)
        world.on_main(run.saver.wait)
        if finished or stop.signal is None:
            return _end(run, StopRequest(), f"Finished: {run.folder}")
        without = " without --fresh" if settings.run.fresh else ""
        cause = "" if stop.signal == signal.SIGPIPE else f" by {stop.signal.name}"
        return _end(
            run,
            stop,
            f"Stopped{cause} after step {run.iteration} and saved; run the same command again{without} to go on.",
        )


def _end(run: Run, stop: StopRequest, words: str) -> int:
    """Say how the run ended; the exit code, which is the same on every process."""
    if words:
        run.display.say(words)
    lost = run.display.lost
    if lost is not None:
        print(f"error: {lost}. {words}", file=sys.stderr, flush=True)
    lost_code = run.world.highest(lost.exit_code if lost is not None else 0)
    return stop.exit_code if stop.signal not in (None, signal.SIGPIPE) else lost_code


def _iterate(run: Run, stop: StopRequest) -> bool:
    """Train, save and look; false when told to stop before everything was done."""
    settings = run.settings.run
    batches = _training_batches(run)
    if not _look(run, stop):  # what a process that ended after a save did not come to
        return False
    while run.iteration < settings.iters:
        alpha = run.settings.objective.alpha_at(run.iteration, settings.iters)
        run.training(run.iteration, alpha, _counted(run, islice(batches, run.order.micro_batches_per_rank)))
        run.iteration += 1
        run.speed.step()
        run.display.advance(run.iteration)
        if _meets(run):
            _end_if_images_lack(run)
        if run.due(settings.iters_per_print):
            _report(run, alpha)
        if run.iteration % _SKIP_CHECK_ITERATIONS == 0:
            _check_skips(run)
        stopping = _agreed_to_stop(run, stop)
        if _save_due(run) or stopping:
            _aside(run, "saving", lambda: _save(run))
        run.saver.check()
        if stopping or not _look(run, stop):
            return False
    return True


def _look(run: Run, stop: StopRequest) -> bool:
    """Evaluate and draw where that is due and not done yet; false when told to stop meanwhile.

    It follows a save that has reached the disk, so that a long look and its images risk nothing, and what it did not
    come to is done when the run goes on.
    """
    settings, world = run.settings.run, run.world
    if run.iteration == 0:
        if settings.starts[0].name and _no_picture(run):  # before fine-tuning, to compare with
            _aside(run, "drawing pictures", lambda: draw(run))
        return True
    if run.due(settings.iters_per_eval) and world.highest(world.is_main and not run.log.has("eval", run.iteration)):
        world.on_main(run.saver.wait)
        _aside(run, "evaluating", lambda: evaluate(run, stop))
        if stop.agreed(world):
            return False
    if run.due(settings.iters_per_images) and _no_picture(run):
        world.on_main(run.saver.wait)
        _aside(run, "drawing pictures", lambda: draw(run))
    return True


def _no_picture(run: Run) -> bool:
    """Whether this iteration's picture is still to be drawn; every process must ask."""
    return bool(run.world.highest(run.world.is_main and not exists(picture_path(run))))


def _save_due(run: Run) -> bool:
    settings = run.settings.run
    snapshot_due = settings.iters_per_ckpt > 0 and run.iteration % settings.iters_per_ckpt == 0
    return snapshot_due or any(
        run.due(every) for every in (settings.iters_per_save, settings.iters_per_eval, settings.iters_per_images)
    )


def _training_batches(run: Run) -> Iterator[Batch]:
    pin = run.world.device.type == "cuda"
    return training_batches(run.train_images, run.order, run.iteration, run.settings.data.num_workers, pin)


def _counted(run: Run, batches: Iterator[Batch]) -> Iterator[Batch]:
    """This process's batches of a step; none from the first one that cannot be read."""
    run.bad_images_before[run.iteration] = run.bad_images
    if run.reading_error is None:
        try:
            run.world.at(f"step {run.iteration + 1}, reading images")
            for batch in batches:
                run.bad_images += batch.bad_images
                run.world.at(f"step {run.iteration + 1}, computing")
                yield batch
                run.world.at(f"step {run.iteration + 1}, reading images")
        except InputError as error:
            run.reading_error, run.reading_failed_at = error, run.iteration
            run.training.has_images = False  # the others wait in the reduction: this process still takes part in it
    run.world.at(f"step {run.iteration + 1}, reducing gradients")


def _meets(run: Run) -> bool:
    """Whether the processes ask each other how they are: every few iterations, and before anything they do together."""
    if run.world.size == 1 or run.iteration % _AGREEMENT_ITERATIONS == 0:
        return True
    return run.due(run.settings.run.iters_per_print) or _save_due(run)


def _end_if_images_lack(run: Run) -> None:
    """Where some process could not read its images, go back to the last whole step, save, and end.

    Raises:
        InputError: on a process that could not read; the others end with it.
    """
    whole = -run.world.highest(-run.reading_failed_at)
    if whole == NEVER:
        run.bad_images_before.clear()
        return
    run.iteration, run.bad_images = whole, run.bad_images_before[whole]  # the weights did not move since
    if run.iteration > run.saved_at:
        _save(run)
    run.world.on_main(run.saver.wait)
    if run.reading_error is None:
        run.world.end_with_failed()
    saved = f"; the run is saved after step {run.iteration:,}, and goes on from there" if run.iteration else ""
    raise InputError(f"{run.reading_error}{saved}") from run.reading_error


def _report(run: Run, alpha: float) -> None:
    line = read_line(run.training, run.iteration, alpha, run.world.total(run.bad_images))
    run.log.write("train", run.iteration, line.as_record())
    run.display.say(console_line(line, run.settings.run.iters, run.speed))
    crowded = run.cores.notice()
    if crowded:
        run.display.say(crowded)


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


def _aside(run: Run, doing: str, action: Callable[[], None]) -> None:
    """Do something that is not training, and leave its time out of the speed."""
    run.display.advance(run.iteration, doing)
    start = time.monotonic()
    action()
    run.speed.exclude(time.monotonic() - start)
    run.display.advance(run.iteration)


def _save(run: Run) -> None:
    """Begin to write a checkpoint, which holds the same weights on whichever process one looks."""
    settings, world, training = run.settings, run.world, run.training
    world.at(f"step {run.iteration}, saving")
    if not world.agree(training.optimiser.checksum()):
        raise InputError(
            f"after step {run.iteration} the processes no longer have the same weights: a processor, a memory or a "
            f"library of one of them computes differently; run the same command again on equal, sound machines."
        )
    training.gather_sums()
    position = Position(run.iteration, {"bad_images": world.total(run.bad_images)}, world.size, run.inventory)
    run.log.flush()
    run.saved_at = run.iteration
    world.on_main(lambda: run.saver.save(training, position, settings.flat(), settings.data.dataset))


def _agreed_to_stop(run: Run, stop: StopRequest) -> bool:
    """Whether any process was told to stop, or cannot print; several processes ask each other every few iterations."""
    if run.display.lost is not None:
        stop.signal = stop.signal or signal.SIGPIPE
    asks = run.world.size == 1 or run.iteration % _AGREEMENT_ITERATIONS == 0
    return asks and stop.agreed(run.world)
