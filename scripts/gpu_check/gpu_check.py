"""Check this project on one CUDA GPU: parity, precisions, speed and memory, in one table.

    bash scripts/gpu_check.sh                       everything, in at most eight minutes
    bash scripts/gpu_check.sh --sections steps      only some sections (--help lists them)
    bash scripts/gpu_check.sh --compile             also compiled blocks, without a time limit

Each row is printed, and written to --out, as soon as it is measured. Rows for which --minutes leaves no time are named
and skipped.
"""

import argparse
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # it opens the reference files

from benchmark import (
    SMALL,
    STEP_COLUMNS,
    Report,
    StepCase,
    describe_machine,
    exact_float32,
    measure_apart,
    measure_if_it_fits,
    measure_step,
    settings_of,
    small_images,
    small_start,
    step_cells,
)
from benchmark_shallow import PRESETS, our_step, timed
from closeness import relative_error
from gpu_check_evaluation import check_evaluation
from gpu_check_kernels import check_kernels
from gpu_check_numbers import BIG, VALUE_TOLERANCE, check_losses, check_parity, check_precisions
from gpu_check_plain import check_against_plain
from gpu_check_sampling import check_sampling
from gpu_check_table import Check

from vdvae_lr.files.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.files.paths import path_of
from vdvae_lr.processes.world import start_world
from vdvae_lr.training.build import build_training
from vdvae_lr.training.step import TrainingStep

COMPILE_SECONDS = 120.0  # compilation starts only if this much time is left


def check_steps(check: Check) -> None:
    """Time the full model with and without LR, at 1 and 8 images."""
    check.report.table(f"20 steps of {BIG} (random weights, generated images), median", STEP_COLUMNS)
    for images in (1, 8):
        _step_rows(check, [StepCase(images, objective) for objective in ("ELBO", "LR", "LR, prior latents")])
    _step_rows(check, [StepCase(1, objective, "eager") for objective in ("ELBO", "LR")])


def check_more_steps(check: Check) -> None:
    """Time other variants of the step. They are skipped first if time is short."""
    check.report.table(f"{BIG}: variants", STEP_COLUMNS)
    both = ("ELBO", "LR")
    _step_rows(check, [StepCase(8, objective, recompute_from=1) for objective in both])
    _step_rows(check, [StepCase(images, objective, autotune=True) for images in (1, 8) for objective in both])
    _step_rows(check, [StepCase(1, "LR, mean image"), StepCase(1, "LR", recompute_from=64)])
    for precision in ("fp16", "fp32"):  # torch computes fp32 convolutions in TF32 by default
        _step_rows(check, [StepCase(1, objective, precision=precision) for objective in both])


def check_compiled_steps(check: Check) -> None:
    """Time compiled blocks in a CUDA graph, in a process that can be killed if it compiles for too long."""
    check.report.table(f"{BIG}: compiled blocks and CUDA graph", STEP_COLUMNS)
    for objective in ("ELBO", "LR"):
        case = StepCase(1, objective, "compile + graph")
        needed = 0 if check.force_compile else COMPILE_SECONDS
        check.row(str(case), needed, lambda case=case: _compiled_cells(check, case))


def _compiled_cells(check: Check, case: StepCase) -> list[str]:
    try:
        measured = measure_apart(case, "cuda", None if check.force_compile else check.seconds_left)
    except TimeoutError as error:
        return [f"{error}; --compile lets it run without a limit"]
    check.steps[case] = measured
    return step_cells(case, measured, check.steps)


def _step_rows(check: Check, cases: Sequence[StepCase]) -> None:
    for case in cases:
        check.row(str(case), 15, lambda case=case: _step_cells(check, case))


def _step_cells(check: Check, case: StepCase) -> list[str]:
    measured = measure_if_it_fits(check.world, case)
    note = ""
    if measured is None:
        check.report.row(str(case), "does not fit; trying again with activations recomputed")
        measured, note = measure_step(check.world, replace(case, recompute_from=1)), " (recomputed)"
    check.steps[case] = measured
    return step_cells(case, measured, check.steps, note)


def check_behaviour(check: Check) -> None:
    """Check with the small model what a step must not do."""
    check.report.table("Behaviour of the step, small model", ("what", "verdict", "found"))
    for precision, graph in (("bf16", False), ("fp16", False), ("bf16", True), ("fp16", True)):
        label = f"host synchronisations in 3 steps, {precision}, {'graph' if graph else 'eager'}"
        check.row(label, 5, lambda args=(precision, graph): _synchronisations(check, *args))
    check.row("graph against eager, 10 steps in float32", 5, lambda: _graph_against_eager(check))
    check.row("a capture while another thread pins memory", 5, lambda: _capture_beside_pinning(check))


def _small_training(check: Check, precision: str, *, graph: bool) -> TrainingStep:
    settings = settings_of(SMALL, precision=precision, n_batch=16, cuda_graph=graph)
    return build_training(settings, check.world, small_start(settings)[0])


def _run_small(training: TrainingStep, first: int, count: int) -> None:
    for iteration in range(first, first + count):
        training(iteration, 1.0, [small_images(16 * iteration, 16, training=True)])


def _synchronisations(check: Check, precision: str, graph: bool) -> list[str]:
    training = _small_training(check, precision, graph=graph)
    _run_small(training, 0, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        _run_small(training, 3, 3)
        torch.cuda.set_sync_debug_mode("default")
    found = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
    places = sorted({f"{Path(warning.filename).name}:{warning.lineno}" for warning in found})
    return [check.verdict(not found), f"{len(found)} {' '.join(places)}"]


def _graph_against_eager(check: Check) -> list[str]:
    losses = []
    with exact_float32():
        for graph in (False, True):
            training = _small_training(check, "fp32", graph=graph)
            _run_small(training, 0, 10)
            losses.append(training.sums[0] / training.finite_steps)
    error = relative_error(losses[1], losses[0])
    return [check.verdict(error <= VALUE_TOLERANCE), f"mean losses differ by {error:.1e}"]


def _capture_beside_pinning(check: Check) -> list[str]:
    """Capture a step while another thread pins memory, as the loader may do."""
    stop, errors = threading.Event(), list[Exception]()

    def pin() -> None:
        held = []
        try:
            while not stop.is_set():
                held.append(torch.empty(1 << 16, dtype=torch.uint8).pin_memory())
                time.sleep(0.001)
        except Exception as error:  # it becomes the result of the row
            errors.append(error)

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        _run_small(_small_training(check, "bf16", graph=True), 0, 2)
    finally:
        stop.set()
        thread.join()
    return [check.verdict(not errors), str(errors[0]).partition("\n")[0] if errors else "captured and replayed"]


def check_shallow(check: Check) -> None:
    """Time the shallow study's steps of 128 images, launched one by one and captured in a graph."""
    check.report.table("Shallow study, 128 images a step", ("step", "steps/s", "steps/s in a graph"))
    for name, preset in PRESETS.items():
        check.row(name, 15, lambda preset=preset: [_shallow_speed(check, preset, graph) for graph in (False, True)])


def _shallow_speed(check: Check, preset: str, graph: bool, steps: int = 50) -> str:
    pixels = torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8, device=check.world.device)
    step = our_step(preset, pixels, graph)
    timed(step, check.world.device)  # compiles, captures
    start = time.perf_counter()
    for _ in range(steps - 1):
        step()
    timed(step, check.world.device)
    return f"{steps / (time.perf_counter() - start):.1f}"


def check_tests(check: Check) -> None:
    """Run the tests that need a GPU."""
    check.report.table("Tests", ("command", "verdict", "last line"))
    check.row("python -m pytest -m cuda -q", 20, lambda: _pytest_cells(check))


def _pytest_cells(check: Check) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=check.seconds_left, check=False)
    passed = done.returncode in (0, 5)  # 5: pytest found no test with this mark
    if not passed:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
    return [check.verdict(passed), (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]]


SECTIONS: dict[str, Callable[[Check], None]] = {
    "parity": check_parity,
    "losses": check_losses,
    "kernels": lambda check: check_kernels(check, (BIG, SMALL)),
    "steps": check_steps,
    "plain": lambda check: check_against_plain(check, BIG),
    "sampling": lambda check: check_sampling(check, BIG),
    "precisions": check_precisions,
    "evaluation": check_evaluation,
    "tests": check_tests,
    "shallow": check_shallow,
    "variants": check_more_steps,
    "behaviour": check_behaviour,
    "compile": check_compiled_steps,
}


def main() -> int:
    """Run the chosen sections in the given order; return 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything (default: 8)")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile without a time limit")
    parser.add_argument("--out", type=path_of, default=ROOT / "docs/benchmarks/gpu_check.md", help="file for the table")
    options = parser.parse_args()
    sections: list[str] = options.sections.split(",")
    if unknown := [name for name in sections if name not in SECTIONS]:
        parser.error(f"there is no section '{unknown[0]}'; choose from {', '.join(SECTIONS)}")
    deadline = time.monotonic() + 60 * options.minutes
    if not torch.cuda.is_available():
        print("error: this check needs a CUDA GPU, and torch finds none on this machine.", file=sys.stderr)
        return 1
    world = start_world("cuda")
    report = Report(options.out)
    check = Check(world, report, deadline, options.compile)
    report.line(f"# One CUDA GPU\n\n`{' '.join(['python', *sys.argv])}`\n\n{describe_machine(world.device)}")
    for name in sections:
        SECTIONS[name](check)
    report.line("\nNothing failed." if check.sound else "\nSOMETHING FAILED.")
    return 0 if check.sound else 1


if __name__ == "__main__":
    sys.exit(main())
