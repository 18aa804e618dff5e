"""Measure what a training run does besides the passes and AdamW; for `benchmark_processes.py`."""

import io
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import torch
from benchmark import Report, generated_images, settings_of
from PIL import Image

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.processes.world import World, start_world
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.checkpoint import BackgroundSaver, CheckpointFolder
from vdvae_lr.training.console import Display, Speedometer
from vdvae_lr.training.loop import train
from vdvae_lr.training.metrics import RunLog, console_line, read_line
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import TrainingStep

OVERHEAD_TARGET_PERCENT = 3.0  # goal: less than this share of the step
OVERHEAD_IMAGES = 4
UPDATES_A_STEP = 4  # measurements of the bookkeeping for each whole step
LOG_LINES = 50
BAR_SECONDS = 3.0
MILLISECONDS = 1000

SAVING_TARGET = 1.5  # goal: the step after a save takes at most this many ordinary steps
SAVING_IMAGES = 2
STEPS_A_SAVE = 6
TRAINING_FILES = 24

PART_COLUMNS = ("part", "median, ms", "every … steps", "ms a step", "share of the step, %")
SAVING_COLUMNS = ("what", "how many", "median, ms", "min-max, ms", "longest against an ordinary step")


def elbo_settings(preset: str, images: int, **changes: Any) -> Settings:
    """Settings of an ELBO step that skips no update.

    Random weights have large gradients, which the skip rule would skip, and a skipped update is cheaper.
    """
    return settings_of(preset, n_batch=images, precision="fp32", alpha_T=0.0, skip_threshold=-1.0, **changes)


class Call(NamedTuple):
    """When one call of a method began and ended, by `time.perf_counter`."""

    begin_s: float
    end_s: float

    @property
    def milliseconds(self) -> float:
        """The length of the call."""
        return MILLISECONDS * (self.end_s - self.begin_s)


@contextmanager
def timed_calls(owner: object, name: str, calls: list[Call]) -> Iterator[None]:
    """Inside this context, add every call of the method `name` of `owner` (an object or a class) to the list."""
    original = getattr(owner, name)

    def run(*arguments: Any) -> Any:
        begin = time.perf_counter()
        result = original(*arguments)
        calls.append(Call(begin, time.perf_counter()))
        return result

    with mock.patch.object(owner, name, run):
        yield


def median_milliseconds(calls: Sequence[Call]) -> float:
    """Median length of the calls."""
    return median(call.milliseconds for call in calls)


def milliseconds_of(action: Callable[[], object]) -> float:
    """Wall-clock milliseconds of one call."""
    start = time.perf_counter()
    action()
    return MILLISECONDS * (time.perf_counter() - start)


# ---- what every step does


@dataclass
class UpdateTimes:
    """Milliseconds of whole steps and of parts of steps without images, which do everything except the passes."""

    step: list[float]
    without_images: list[float]
    adamw: list[Call]
    average: list[Call]
    optimiser: list[Call]

    @property
    def rule(self) -> list[float]:
        """Milliseconds of the gradient norm, clipping, the skip rule and its counters."""
        parts = zip(self.optimiser, self.adamw, self.average, strict=True)
        return [whole.milliseconds - adamw.milliseconds - average.milliseconds for whole, adamw, average in parts]

    @property
    def sums(self) -> list[float]:
        """Milliseconds of setting the gradient to zero and of the running sums."""
        return [whole - part.milliseconds for whole, part in zip(self.without_images, self.optimiser, strict=True)]


def measure_updates(training: TrainingStep, batch: Batch, steps: int) -> UpdateTimes:
    """Time whole steps, and between them steps without images, which do everything except the passes."""
    times = UpdateTimes([], [], [], [], [])
    optimiser = training.optimiser
    for iteration in range(1 + steps):
        step_time = milliseconds_of(lambda: training(iteration, 1.0, [batch]))  # noqa: B023 # called at once
        if iteration == 0:
            continue  # the first step allocates memory
        times.step.append(step_time)
        with ExitStack() as stack:
            for owner, name, calls in (
                (torch.optim.AdamW, "step", times.adamw),
                (optimiser.ema, "update", times.average),
                (optimiser, "step", times.optimiser),
            ):
                stack.enter_context(timed_calls(owner, name, calls))
            for _ in range(UPDATES_A_STEP):
                times.without_images.append(milliseconds_of(lambda: training(iteration, 1.0, [])))  # noqa: B023
    return times


class QuietTerminal(io.StringIO):
    """A terminal that nobody sees, so that the bar is drawn as for a person."""

    def isatty(self) -> bool:
        return True


def measure_lines(training: TrainingStep, display: Display) -> dict[str, list[float]]:
    """Milliseconds of each part of a log line, as the loop writes it, and of moving the bar."""
    times: dict[str, list[float]] = defaultdict(list)
    speed = Speedometer(LOG_LINES, OVERHEAD_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder), 0)
        for iteration in range(1, 1 + LOG_LINES):
            training.finite_steps.fill_(1)  # else the means are NaN, which are not written as curves
            speed.step()
            moments = [time.perf_counter()]
            record = read_line(training, 0.0, 0)
            moments.append(time.perf_counter())
            log.write("train", iteration, record)
            moments.append(time.perf_counter())
            display.say(console_line(iteration, record, LOG_LINES, speed))
            moments.append(time.perf_counter())
            display.advance(iteration)
            moments.append(time.perf_counter())
            for name, begin, end in zip(("read", "write", "say", "advance"), moments, moments[1:], strict=False):
                times[name].append(MILLISECONDS * (end - begin))
        log.close()
    return times


def cpu_share_while_waiting() -> float:
    """Processor time that this process uses while its main thread sleeps, as a share of one core."""
    start, used = time.perf_counter(), time.process_time()
    time.sleep(BAR_SECONDS)
    return (time.process_time() - used) / (time.perf_counter() - start)


def measure_overhead(report: Report, preset: str, steps: int) -> None:
    """Measure the share of the step that is neither passes nor AdamW."""
    settings = elbo_settings(preset, OVERHEAD_IMAGES)
    training = build_training(settings, start_world("cpu"), StartWeights(None, None))
    updates = measure_updates(training, generated_images(training.model.config, OVERHEAD_IMAGES), steps)
    idle_share = cpu_share_while_waiting()
    terminal = mock.patch.dict(os.environ, {"TERM": "xterm"})  # a dumb terminal gets no bar
    with terminal, redirect_stdout(QuietTerminal()), Display(shown=True, done=0, iterations=LOG_LINES) as display:
        lines = measure_lines(training, display)
        bar_share = max(0.0, cpu_share_while_waiting() - idle_share)
    step_time, every = median(updates.step), settings.run.iters_per_print
    counted = [
        ("gradient norm, clipping, skip rule", median(updates.rule), 1),
        ("EMA", median_milliseconds(updates.average), 1),
        ("gradient set to zero, running sums", median(updates.sums), 1),
        ("log line: sums read", median(lines["read"]), every),
        ("log line: JSON and TensorBoard", median(lines["write"]), every),
        ("log line: shown", median(lines["say"]), every),
        ("bar moved", median(lines["advance"]), 1),
        ("bar drawn, by a thread of its own (processor time)", bar_share * step_time, 1),
    ]
    report_overhead(report, preset, updates, counted)


def report_overhead(
    report: Report, preset: str, updates: UpdateTimes, counted: Sequence[tuple[str, float, int]]
) -> None:
    """Write the table of the parts, and the sum of those that count as overhead."""
    step_time = median(updates.step)
    passes = step_time - median(updates.without_images)
    title = f"{preset}, ELBO, float32, {OVERHEAD_IMAGES} images, {len(updates.step)} step(s)"
    report.table(f"{title}, each followed by {UPDATES_A_STEP} without images", PART_COLUMNS)
    report.row(f"whole step ({min(updates.step):.0f}-{max(updates.step):.0f})", f"{step_time:.0f}", "1", "-", "100")
    total = 0.0
    for name, milliseconds, every in (
        ("passes (the rest)", passes, 1),
        ("AdamW", median_milliseconds(updates.adamw), 1),
        *counted,
    ):
        each_step = milliseconds / every
        total += each_step if (name, milliseconds, every) in counted else 0.0
        report.row(name, f"{milliseconds:.3f}", str(every), f"{each_step:.3f}", f"{100 * each_step / step_time:.3f}")
    report.line(
        f"\nEverything except passes and AdamW takes {total:.2f} ms a step, {100 * total / step_time:.2f}% of it. "
        f"Goal: below {OVERHEAD_TARGET_PERCENT:g}%.\n"
        "A step without images is the real step with no micro-batch: it does everything except the passes. "
        "The bar's thread counts with the processor time it takes, although another core may be free for it. "
        "Images are read beside training. Evaluations, pictures and checkpoints are not in this table."
    )


# ---- saving


class SavingTimes(NamedTuple):
    """The steps of a run, the copies of its state, and the writing of these copies beside the steps."""

    steps: list[Call]
    copies: list[Call]
    writes: list[Call]

    def laps(self) -> list[Call]:
        """Times from the start of one step to the start of the next, with all that the loop does; without the first."""
        return [Call(step.begin_s, after.begin_s) for step, after in pairwise(self.steps)][1:]

    def kinds(self) -> dict[str, list[Call]]:
        """Laps by what happened in them: a copy; the first lap after a copy; a write beside a later lap; nothing."""
        laps = self.laps()
        with_copy = [any(lap.begin_s < copy.begin_s < lap.end_s for copy in self.copies) for lap in laps]
        kinds: dict[str, list[Call]] = {name: [] for name in ("ordinary", "copying", "after", "beside")}
        for index, lap in enumerate(laps):
            beside = any(write.begin_s < lap.end_s and write.end_s > lap.begin_s for write in self.writes)
            after = index > 0 and with_copy[index - 1]
            name = "copying" if with_copy[index] else "after" if after else "beside" if beside else "ordinary"
            kinds[name].append(lap)
        return kinds


def write_image_files(folder: Path, settings: Settings) -> None:
    """Write image files for a run to read."""
    pixels = generated_images(settings.model, TRAINING_FILES).pixels.permute(0, 2, 3, 1)
    for number, levels in enumerate(pixels.numpy()):
        Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels).save(folder / f"{number:03d}.png")


def run_with_saves(preset: str, saves: int, folder: Path) -> SavingTimes:
    """Do a real run in `folder` with a checkpoint every few steps. No step follows the last checkpoint."""
    iterations = STEPS_A_SAVE * (saves + 1)
    run = {"iters": iterations, "iters_per_save": STEPS_A_SAVE, "save_dir": str(folder / "runs"), "fresh": True}
    once_at_the_end = {"iters_per_eval": iterations, "iters_per_images": iterations, "eval_examples": 1}
    data = {"dataset": "folder", "data_root": str(folder), "pretrained": "none", "num_images_visualize": 1}
    settings = elbo_settings(preset, SAVING_IMAGES, **run, **once_at_the_end, **data)
    write_image_files(folder, settings)
    times = SavingTimes([], [], [])
    with ExitStack() as stack:
        stack.enter_context(timed_calls(TrainingStep, "__call__", times.steps))
        stack.enter_context(timed_calls(BackgroundSaver, "save", times.copies))
        stack.enter_context(timed_calls(CheckpointFolder, "write", times.writes))
        stack.enter_context(redirect_stdout(io.StringIO()))  # hide what the run prints
        train(settings, World(0, 1, torch.device("cpu")))
    return times


def measure_saving(report: Report, preset: str, saves: int, parent: Path | None) -> None:
    """Measure how checkpoints slow the steps around them."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        times = run_with_saves(preset, saves, Path(folder))
    kinds = times.kinds()
    ordinary = median_milliseconds(kinds["ordinary"] or times.laps())
    title = f"{preset}, ELBO, float32, {SAVING_IMAGES} image(s), {saves} checkpoints, one every {STEPS_A_SAVE} steps"
    report.table(title, SAVING_COLUMNS)
    rows = {
        "ordinary step": kinds["ordinary"],
        "step with the copy of the state after it": kinds["copying"],
        "first step after a save": kinds["after"],
        "further steps beside which a checkpoint is written": kinds["beside"],
        "the copy alone": times.copies[:-1],
        "writing one, beside training": times.writes[:-1],
    }
    for name, calls in rows.items():
        values = [call.milliseconds for call in calls] or [float("nan")]
        spread = f"{min(values):.0f}-{max(values):.0f}"
        report.row(name, str(len(calls)), f"{median(values):.0f}", spread, f"{max(values) / ordinary:.2f}")
    after = [call.milliseconds / ordinary for call in kinds["after"]]
    report.line(
        f"\nThe first step after a save takes {median(after):.2f} ordinary steps (median), {max(after):.2f} at most. "
        f"Goal: at most {SAVING_TARGET}.\n"
        "A step here lasts until the next step begins, with everything that the loop does in between. "
        "During an ordinary step nothing is written. The first step of the run is left out."
    )
