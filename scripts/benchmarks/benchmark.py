"""Measure the speed and the memory of the training step on this machine.

    python scripts/benchmarks/benchmark.py                    cifar10: our step and a plain step; the cost of LR
    python scripts/benchmarks/benchmark.py --preset fashion --images 16 --steps 9 --device cuda
    python scripts/benchmarks/benchmark.py --memory           ffhq256: peak memory and time of a step (takes minutes)

`scripts/gpu_check/gpu_check.py` uses the same functions on a CUDA GPU.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from plain_vdvae import PlainTraining

from vdvae_lr.cli.shared.config import apply_values
from vdvae_lr.datasets.catalogue import Splits, open_splits
from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.files.paths import path_of
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.processes.cuda_graph import is_out_of_memory, release_memory
from vdvae_lr.processes.world import World, start_world
from vdvae_lr.training.build import StartWeights, build_training, find_start_weights
from vdvae_lr.training.kernels import choose_kernel
from vdvae_lr.training.settings import Settings

SMALL = "fashion"
WARM_UP = 3
NO_WEIGHTS = StartWeights(None, None)
PLAIN_TARGET, LR_TARGET = 0.75, 1.35  # goals: our ELBO step against a plain one; an LR step against an ELBO step
MEMORY_TARGETS_GB = (17.1, 9.0)  # goals: ELBO step; any step with activations recomputed
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ELBO": {"alpha_T": 0.0},
    "LR": {},
    "LR, prior latents": {"lr_latents": "prior"},
    "LR, mean image": {"lr_image": "mean"},
}
STEP_COLUMNS = ("step", "step time, ms", "min-max", "images/s", "peak, GB", "LR/ELBO", "first step, s", "-ELBO")


@dataclass(frozen=True)
class StepCase:
    """One configuration of the training step."""

    images: int
    objective: str
    mode: str = "graph"  # eager | graph | compile + graph
    recompute_from: int | None = None  # lowest resolution whose activations are recomputed
    autotune: bool = False
    precision: str = "bf16"
    preset: str = "ffhq256"
    timed: int = 20

    def __str__(self) -> str:
        recomputed = "" if self.recompute_from is None else f", activations recomputed from {self.recompute_from} on"
        extras = [recomputed, ", cuDNN autotuned" * self.autotune]
        return f"{self.objective}; {self.images} image(s), {self.mode}, {self.precision}{''.join(extras)}"


@dataclass(frozen=True)
class StepMeasurement:
    """Time and memory of some steps. `peak_bytes` is GPU memory on CUDA, resident memory of the process on a CPU."""

    milliseconds: list[float]
    first_seconds: float
    peak_bytes: int
    negative_elbo: float

    @property
    def median(self) -> float:
        return median(self.milliseconds)

    @property
    def spread(self) -> str:
        return f"{min(self.milliseconds):.1f}-{max(self.milliseconds):.1f}"


class Report:
    """Tables in Markdown. They are printed and written line by line, so a killed run still shows what it measured."""

    def __init__(self, out: Path | None = None) -> None:
        self._file = None
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._file = out.open("w", encoding="utf-8")

    def line(self, text: str = "") -> None:
        print(text, flush=True)
        if self._file is not None:
            self._file.write(text + "\n")
            self._file.flush()

    def table(self, title: str, columns: Sequence[str]) -> None:
        self.line(f"\n## {title}\n")
        self.row(*columns)
        self.row(*("-" * len(column) for column in columns))

    def row(self, *cells: str) -> None:
        self.line("| " + " | ".join(cells) + " |")


def describe_machine(device: torch.device) -> str:
    """The hardware and the versions, as one paragraph."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{processor}, {cores} cores, {torch.get_num_threads()} threads; torch {torch.__version__}"
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = "unknown"
        with suppress(OSError, subprocess.SubprocessError):
            driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
        cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {driver}"
        text = f"{torch.cuda.get_device_name(device)}, {cuda}; {text}"
    return f"{text}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def fresh_memory() -> None:
    """Free all memory and reset the peak."""
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside this context, float32 convolutions and matrix products on CUDA do not use TF32."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def settings_of(preset: str, **changes: Any) -> Settings:
    """The settings of a preset, with `changes` applied."""
    return apply_values(Settings(), read_presets(preset) | {"hps": preset, "global_batch": 0} | changes, "benchmark")


def case_settings(case: StepCase) -> Settings:
    """The settings with which a run takes the step of `case`."""
    return settings_of(
        case.preset,
        n_batch=case.images,
        precision=case.precision,
        checkpoint_activations=case.recompute_from is not None,
        checkpoint_resolution=case.recompute_from or 1,
        cuda_graph=case.mode != "eager",
        compile="on" if case.mode.startswith("compile") else "off",
        **OBJECTIVES[case.objective],
    )


def pinned(pixels: Tensor) -> Tensor:
    """The pixels in page-locked memory if there is a GPU, as the loader returns them."""
    return pixels.pin_memory() if torch.cuda.is_available() else pixels


def generated_images(config: VAEConfig, count: int) -> Batch:
    """Images of smooth colours with a little noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, config.image_channels, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, size=(config.image_size, config.image_size), mode="bilinear")
    levels = 255 * (smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    pixels = levels.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return Batch(pinned(pixels), np.arange(count))


@cache
def _small_splits() -> Splits:
    settings = settings_of(SMALL)
    return open_splits(settings.data, settings.model.image_size, settings.model.image_channels)


def small_images(start: int, count: int, *, training: bool) -> Batch:
    """`count` bundled images from index `start` on, from the training or validation split; it restarts at the end."""
    source = _small_splits().train if training else _small_splits().valid
    rows = (np.arange(count) + start) % len(source)
    return Batch(pinned(torch.from_numpy(source.read(rows)).permute(0, 3, 1, 2)), rows)


def small_start(settings: Settings) -> tuple[StartWeights, str]:
    """The bundled small weights, or random weights if the checkout has none; and the name of the choice."""
    if (CHECKOUT_ROOT / "models" / SMALL).is_dir():
        return find_start_weights(settings), "bundled weights"
    return NO_WEIGHTS, "random weights"


def measure_step(world: World, case: StepCase) -> StepMeasurement:
    """Time the real training step of one configuration, with random weights and generated images."""
    settings = case_settings(case)
    fresh_memory()
    torch.backends.cudnn.benchmark = case.autotune
    training = build_training(settings, world, NO_WEIGHTS)
    choose_kernel(training.model, case.images, world)
    batch = generated_images(settings.model, case.images)

    def step(iteration: int) -> None:
        training(iteration, 1.0, [batch])

    first_seconds = step_milliseconds(step, [0], world.device)[0] / 1000
    warm_up = WARM_UP if world.device.type == "cuda" else 0
    step_milliseconds(step, range(1, 1 + warm_up), world.device)
    times = step_milliseconds(step, range(1 + warm_up, 1 + warm_up + case.timed), world.device)
    torch.backends.cudnn.benchmark = False
    # The peak includes the first step, because a graph allocates its memory when it is captured.
    peak = torch.cuda.max_memory_allocated() if world.device.type == "cuda" else _peak_resident_bytes()
    return StepMeasurement(times, first_seconds, peak, float(training.sums[0] / training.finite_steps))


def measure_if_it_fits(world: World, case: StepCase) -> StepMeasurement | None:
    """`measure_step`, or None if the memory of the GPU is too small."""
    try:
        return measure_step(world, case)
    except RuntimeError as error:
        if case.recompute_from or not is_out_of_memory(error):
            raise
        return None


def step_cells(
    case: StepCase, measured: StepMeasurement, others: Mapping[StepCase, StepMeasurement], note: str = ""
) -> list[str]:
    """The cells of STEP_COLUMNS except the first. The ratio is to the ELBO step among `others`."""
    plain = others.get(replace(case, objective="ELBO"))
    ratio = f"{measured.median / plain.median:.2f}" if plain and case.objective != "ELBO" else "-"
    return [
        f"{measured.median:.1f}",
        measured.spread,
        f"{1000 * case.images / measured.median:.2f}",
        f"{measured.peak_bytes / 1e9:.2f}",
        ratio + note,
        f"{measured.first_seconds:.1f}",
        f"{measured.negative_elbo:.4f}",
    ]


def step_milliseconds(step: Callable[[int], None], iterations: Sequence[int], device: torch.device) -> list[float]:
    """Milliseconds of each step; on CUDA, measured by events on the GPU."""
    if device.type != "cuda":
        moments = [time.perf_counter()]
        for iteration in iterations:
            step(iteration)
            moments.append(time.perf_counter())
        return [1000 * (after - before) for before, after in pairwise(moments)]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(iterations) + 1)]
    torch.cuda.synchronize()
    marks[0].record()
    for iteration, mark in zip(iterations, marks[1:], strict=True):
        step(iteration)
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in pairwise(marks)]


def _peak_resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure_apart(case: StepCase, device: str, seconds: float | None) -> StepMeasurement:
    """`measure_step` in a new process, with nothing else in its memory.

    Raises:
        TimeoutError: the process took longer than `seconds`; it and its children were killed.
        RuntimeError: the process failed; its error message is on stderr.
    """
    command = [sys.executable, __file__, "--device", device, "--case", json.dumps(asdict(case))]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"not finished after {seconds:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # the whole session, which includes the compiler's workers
        child.wait()
    if child.returncode != 0:
        raise RuntimeError(f"the measuring process ended with {child.returncode}")
    return StepMeasurement(**json.loads(output.splitlines()[-1]))


def compare_with_plain(report: Report, world: World, preset: str, images: int, steps: int) -> None:
    """Measure our step of a preset's model, a plain step of the same model, and LR steps, taking turns."""
    objectives = ("ELBO", "LR", "LR, prior latents")
    nchw = patch.object(torch, "channels_last", torch.contiguous_format)
    case = StepCase(images, "", "eager", precision="fp32", preset=preset)
    trainings = {
        name: build_training(case_settings(replace(case, objective=name)), world, NO_WEIGHTS) for name in objectives
    }
    with nchw:
        trainings["ELBO, NCHW"] = build_training(case_settings(replace(case, objective="ELBO")), world, NO_WEIGHTS)
    batch = generated_images(trainings["ELBO"].model.config, images)
    torch.manual_seed(0)
    plain = PlainTraining(VDVAE(trainings["ELBO"].model.config).to(world.device), settings_of(preset).optimisation)
    runs: dict[str, Callable[[int], Any]] = {"plain ELBO": lambda _: plain(batch.pixels.to(world.device))}
    for name, training in trainings.items():
        runs[name] = lambda iteration, training=training: training(iteration, 1.0, [batch])
    times: dict[str, list[float]] = {name: [] for name in runs}
    for iteration in range(1 + steps):  # in turn, so a slow phase of the machine affects all of them
        for name, run in runs.items():
            with nchw if name.endswith("NCHW") else nullcontext():
                times[name] += step_milliseconds(run, [iteration], world.device)
    title = f"{preset}, {images} images, float32, {steps} steps of each in turn"
    report.table(title, ("step", "median, ms", "min-max", "against the plain step", "against our ELBO step"))
    plainly, ours = median(times["plain ELBO"][1:]), median(times["ELBO"][1:])
    for name, values in times.items():
        kept = values[1:]  # without the first step, which allocates memory
        ratios = [f"{median(kept) / whole:.2f}" for whole in (plainly, ours)]
        report.row(name, f"{median(kept):.0f}", f"{min(kept):.0f}-{max(kept):.0f}", *ratios)
    report.line(f"\nGoals: ELBO {PLAIN_TARGET} of the plain step, LR {LR_TARGET} of the ELBO step.")


def measure_memory(report: Report, steps: int) -> None:
    """Measure the peak memory of the full model's step on a CPU, each case in a new process, one after another."""
    report.table(f"ffhq256, 1 image, float32, CPU, {steps} steps after the first", STEP_COLUMNS)
    measured: dict[StepCase, StepMeasurement] = {}
    for objective, recompute_from in (("ELBO", None), ("ELBO", 64), ("ELBO", 1), ("LR", 64), ("LR", 1)):
        case = StepCase(1, objective, "eager", recompute_from, precision="fp32", timed=steps)
        try:
            measured[case] = measure_apart(case, "cpu", None)
            report.row(str(case), *step_cells(case, measured[case], measured))
        except RuntimeError as error:
            report.row(str(case), f"failed: {error}")
    plain, recomputed = MEMORY_TARGETS_GB
    report.line(
        f"\nPeak: the whole process. Targets: ELBO below {plain} GB; recomputed, LR too, below {recomputed} GB."
    )


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10", help="model whose steps are timed (default: cifar10)")
    parser.add_argument("--images", type=int, default=4, help="images in a step (default: 4)")
    parser.add_argument("--memory", action="store_true", help="instead: memory of the ffhq256 step on a CPU (minutes)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each kind (default: 5)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device of the timed steps (default: cpu)"
    )
    parser.add_argument("--out", type=path_of, help="also write the tables to this file")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # one measurement in a new process: `measure_apart`
    options = parser.parse_args()
    if min(options.steps, options.images) < 1:
        parser.error("--steps and --images must be at least 1")
    try:
        settings_of(options.preset)
        world = start_world(options.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT_ERROR
    if options.case:
        print(json.dumps(asdict(measure_step(world, StepCase(**json.loads(options.case))))))
        return 0
    report = Report(options.out)
    report.line(f"# Benchmark\n\n`{' '.join(['python', *sys.argv])}`\n\n{describe_machine(world.device)}")
    if options.memory:
        measure_memory(report, options.steps)
    else:
        compare_with_plain(report, world, options.preset, options.images, options.steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
