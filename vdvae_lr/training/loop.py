"""A run from its first iteration, or from its last checkpoint, to its end."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import exists
from vdvae_lr.hub.sources import WeightSource
from vdvae_lr.processes.world import World
from vdvae_lr.training.interruption import StopRequest, listening_for_signals
from vdvae_lr.training.lagging import DECODER, ENCODER, EncoderFirst, encoder_turn
from vdvae_lr.training.metrics import console_line, read_line
from vdvae_lr.training.observe import draw, evaluate, held_out_information, picture_path
from vdvae_lr.training.run import Run, prepared_run
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import NEVER

_SKIP_CHECK_ITERATIONS = 50  # how often the host asks the device whether updates are still being made
_AGREEMENT_ITERATIONS = 10  # how often several processes ask each other whether to stop


def train(settings: Settings, world: World, pretrained: WeightSource | None = None) -> int:
    """Run to the end, or until a signal; returns the exit code for the shell.

    With `test_eval`, only evaluate the weights that the run has, or would start from. `pretrained` is what
    `settings.run.pretrained` stands for, if that is known already. Raises InputError for what a person must mend;
    nothing that was there is lost.
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
        saved = f"after step {run.iteration} and saved" if run.iteration else "before the first step"
        return _end(run, stop, f"Stopped{cause} {saved}; run the same command again{without} to go on.")


def _end(run: Run, stop: StopRequest, words: str) -> int:
    """Say how the run ended. Returns the exit code, which is the same on every process."""
    if words:
        run.display.say(words)
    lost = run.display.lost
    if lost is not None:
        print(f"error: {lost}. {words}", file=sys.stderr, flush=True)
    lost_code = run.world.highest(lost.exit_code if lost is not None else 0)
    return stop.exit_code if stop.signal not in (None, signal.SIGPIPE) else lost_code


def _iterate(run: Run, stop: StopRequest) -> bool:
    """Train, save and look. Returns False if told to stop before everything was done."""
    run_settings = run.settings.run
    if not _look(run, stop):  # the run may have ended between a save and the look that follows it
        return False
    while run.iteration < run_settings.iters:
        alpha = run.settings.objective.alpha_at(run.iteration, run_settings.iters)
        moving = _after_encoder_turn(run, alpha)
        run.step(run.iteration, alpha, _counted(run, run.batches), moving)
        run.iteration += 1
        run.speed.step()
        run.display.advance(run.iteration)
        if _meets(run):
            _end_if_images_lack(run)
        if run.encoder_first and not run.encoder_first.over and run.iteration % run.check_iters == 0:
            _measure_information(run, run.encoder_first)
        if run.due(run_settings.iters_per_print):
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
    """Evaluate and draw what is due and not done yet. Returns False if told to stop meanwhile.

    A look waits until the save before it has reached the disk. So a long look and its images risk nothing, and a run
    that goes on first does what the look did not complete.
    """
    run_settings, world = run.settings.run, run.world
    before = run.iteration == 0
    if before and not run_settings.starts[0].name:  # before fine-tuning there is something to compare with
        return True
    evaluating = before or run.due(run_settings.iters_per_eval)
    drawing = before or run.due(run_settings.iters_per_images)
    if evaluating and world.highest(world.is_main and not run.log.has("eval", run.iteration)):
        world.on_main(run.saver.wait)
        _aside(run, "evaluating", lambda: evaluate(run, stop))
        if stop.agreed(world):
            return False
    if drawing and _no_picture(run):
        world.on_main(run.saver.wait)
        _aside(run, "drawing pictures", lambda: draw(run))
    elif drawing and run.iteration > run.resumed_at:
        run.log.picture(run.iteration, picture_path(run))  # TensorBoard forgets what came after the last checkpoint
    return True


def _after_encoder_turn(run: Run, alpha: float) -> tuple[bool, bool] | None:
    """Take the encoder's turn if Lagging VAE's schedule has one; returns what the iteration's own update moves."""
    schedule, ahead = run.encoder_first, run.encoder_batches
    if schedule is None or schedule.over or ahead is None:
        return None
    before = schedule.encoder_updates

    def update(number: int) -> float:
        draws = ("encoder", before + number)
        run.step(run.iteration, alpha, _counted(run, ahead), ENCODER, draws)
        return run.step.loss()

    made = encoder_turn(update, run.settings.optimisation.encoder_steps)
    run.encoder_first = replace(schedule, encoder_updates=before + made)
    return DECODER


def _measure_information(run: Run, schedule: EncoderFirst) -> None:
    """Decide whether Lagging VAE's schedule goes on."""
    information = held_out_information(run)
    run.encoder_first = after = schedule.after_measurement(information, run.settings.optimisation)
    record = {"mutual_information_nats_per_dim": information, "encoder_updates": schedule.encoder_updates}
    run.log.write("encoder_first", run.iteration, record)
    words = "; from here on every update is of encoder and decoder" if after.over else ""
    run.display.say(
        f"step {run.iteration} · mutual information of held-out images {information:.4f} nats/dim after "
        f"{schedule.encoder_updates:,} updates of the encoder alone{words}"
    )


def _no_picture(run: Run) -> bool:
    """Whether this iteration's picture does not exist yet; every process must ask."""
    return bool(run.world.highest(run.world.is_main and not exists(picture_path(run))))


def _save_due(run: Run) -> bool:
    run_settings = run.settings.run
    snapshot_due = run_settings.iters_per_ckpt > 0 and run.iteration % run_settings.iters_per_ckpt == 0
    every = (run_settings.iters_per_save, run_settings.iters_per_eval, run_settings.iters_per_images)
    return snapshot_due or any(map(run.due, every))


def _counted(run: Run, batches: Iterator[Batch]) -> Iterator[Batch]:
    """This process's next batches of a step, with a count of the images in them that were replaced."""
    run.before.setdefault(run.iteration, (run.bad_images, run.encoder_first))
    step = f"step {run.iteration + 1}"
    run.world.at(f"{step}, reading images")
    try:
        for batch in islice(batches, run.step.local_micro_batches):
            run.bad_images += batch.bad_images
            run.world.at(f"{step}, computing")
            yield batch
            run.world.at(f"{step}, reading images")
    finally:
        run.world.at(f"{step}, reducing gradients")


def _meets(run: Run) -> bool:
    """Whether the processes ask each other how they are: every few iterations, and before anything they do together."""
    if run.world.size == 1 or run.iteration % _AGREEMENT_ITERATIONS == 0:
        return True
    return run.due(run.settings.run.iters_per_print) or _save_due(run)


def _end_if_images_lack(run: Run) -> None:
    """If some process could not read its images, go back to the last whole step, save, and end.

    Raises InputError on a process that could not read; the others end with it.
    """
    whole = -run.world.highest(-run.step.unread_step)
    if whole == NEVER:
        run.before.clear()
        return
    run.iteration, (run.bad_images, run.encoder_first) = whole, run.before[whole]  # no later step moved the weights
    if run.iteration > run.saved_at:
        _save(run)
    run.world.on_main(run.saver.wait)
    if run.step.reading_error is None:
        run.world.end_with_failed()
    saved = f"; the run is saved after step {run.iteration:,}, and goes on from there" if run.iteration else ""
    raise InputError(f"{run.step.reading_error}{saved}") from run.step.reading_error


def _report(run: Run, alpha: float) -> None:
    record = read_line(run.step, alpha, run.world.total(run.bad_images))
    run.log.write("train", run.iteration, record)
    run.display.say(console_line(run.iteration, record, run.settings.run.iters, run.speed))
    crowded = run.cores.notice()
    if crowded:
        run.display.say(crowded)


def _check_skips(run: Run) -> None:
    optimiser, optimisation = run.step.optimiser, run.settings.optimisation
    skips = int(optimiser.consecutive_skips)
    if skips >= optimisation.max_consecutive_skips:
        raise InputError(
            f"the last {skips} updates were skipped (gradient norm {float(optimiser.gradient_norm):.4g}, "
            f"skip_threshold {optimisation.skip_threshold:g}); lower --lr or --alpha_T, raise --skip_threshold, or use "
            "--precision fp32, in a new run (--desc NAME) that starts from this one's last checkpoint (--pretrained "
            f"{run.folder}) or as this one did."
        )


def _aside(run: Run, doing: str, action: Callable[[], None]) -> None:
    """Do something that is not training, and leave its time out of the speed."""
    run.display.advance(run.iteration, doing)
    start = time.monotonic()
    action()
    run.speed.exclude(time.monotonic() - start)
    run.display.advance(run.iteration)


def _save(run: Run) -> None:
    """Begin to write a checkpoint, after a check that all processes have the same weights."""
    world = run.world
    world.at(f"step {run.iteration}, saving")
    if not world.agree(run.step.optimiser.checksum()):
        raise InputError(
            f"after step {run.iteration} the processes no longer have the same weights: a processor, a memory or a "
            f"library of one of them computes differently; run the same command again on equal, sound machines."
        )
    run.step.gather_sums()
    bad_images = world.total(run.bad_images)
    run.log.flush()
    run.saved_at = run.iteration
    schedule = asdict(run.encoder_first) if run.encoder_first else None
    world.on_main(lambda: run.saver.save(run.iteration, bad_images, schedule))


def _agreed_to_stop(run: Run, stop: StopRequest) -> bool:
    """Whether any process was told to stop, or cannot print. Several processes ask each other every few iterations."""
    lost = run.display.lost
    if lost is not None:
        stop.signal = stop.signal or (signal.SIGHUP if lost.terminal_closed else signal.SIGPIPE)
    asks = run.world.size == 1 or run.iteration % _AGREEMENT_ITERATIONS == 0
    return asks and stop.agreed(run.world)
