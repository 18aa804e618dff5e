"""What one CUDA card makes of this project: parity, precisions, speed and memory, in one table.

    bash scripts/gpu_check.sh                       everything, in under eight minutes
    bash scripts/gpu_check.sh --sections steps      only some of it (--help lists them)
    bash scripts/gpu_check.sh --compile             compiled blocks too, however long they take

Rows are printed, and written to --out, as they are measured; what does not fit into --minutes is named and left out.
"""

import argparse
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # where the reference files are opened

from benchmark import (
    SMALL,
    STEP_COLUMNS,
    Report,
    StepCase,
    StepMeasurement,
    describe_machine,
    exact_float32,
    generated_images,
    measure_apart,
    measure_if_it_fits,
    measure_step,
    release_memory,
    settings_of,
    small_images,
    small_start,
    step_cells,
)
from closeness import relative_error
from reference_cases import NAMES, ReferenceCase, load_case

from vdvae_lr.bundled import CHECKOUT_ROOT as ROOT
from vdvae_lr.distributed import World, start_world
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.hub.openai import to_published
from vdvae_lr.losses.elbo import group_rates_nats
from vdvae_lr.losses.objective import ObjectiveSettings, evaluate_objective
from vdvae_lr.losses.vdvae_pass import describe_pass
from vdvae_lr.model.decoder import Given
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.step import TrainingStep, autocast, batch_terms

BIG = "ffhq256"
PRECISIONS = ("fp32", "bf16", "fp16")
PRECISION_STEPS, LAST_STEPS = 200, 50
BOUND_IMAGES, BOUND_BATCH = 256, 64
VALUE_TOLERANCE, GRADIENT_TOLERANCE, BF16_TOLERANCE = 1e-4, 1e-3, 1e-2
COMPILE_SECONDS = 120.0  # with less time left, compilation is not begun


@dataclass
class Check:
    """The card, the report, and the time there is."""

    world: World
    report: Report
    deadline: float
    force_compile: bool
    sound: bool = True
    steps: dict[StepCase, StepMeasurement] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def row(self, label: str, seconds: float, measure: Callable[[], Sequence[str]]) -> None:
        """One row that takes about so many `seconds`; a failure is a row as well, and the check goes on."""
        if self.seconds_left < seconds:
            self.report.row(label, f"skipped: no {seconds:.0f} s left")
            return
        try:
            cells = measure()
        except Exception as error:  # whatever it is, the other rows are still worth having
            traceback.print_exc()
            cells = [self.verdict(False), f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"]
        self.report.row(label, *cells)
        release_memory()

    def verdict(self, passed: bool) -> str:
        self.sound &= passed
        return "ok" if passed else "FAILED"


def check_parity(check: Check) -> None:
    """The three reference files on the card in float32."""
    columns = ("reference file", "verdict", "numbers", "worst relative error", "worst error of a gradient norm")
    check.report.table("Reference files, float32 with TF32 off", columns)
    for name in NAMES:
        check.row(name, 5, lambda name=name: _parity_cells(check, name))


def _parity_cells(check: Check, name: str) -> list[str]:
    with exact_float32():
        case = load_case(name, torch.float32)
        case.model.to(device=check.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        numbers = _inferred_numbers(case, check.world.device) | _decoded_numbers(case, check.world.device)
    errors = {key: relative_error(value.cpu(), case.tensor(key)) for key, value in numbers.items()}
    norms = {key: error for key, error in errors.items() if key.startswith("gradnorm/")}
    values = {key: error for key, error in errors.items() if key not in norms}
    worst = [max(part, key=lambda key: np.nan_to_num(part[key], nan=np.inf)) for part in (values, norms)]
    passed = errors[worst[0]] <= VALUE_TOLERANCE and errors[worst[1]] <= GRADIENT_TOLERANCE
    return [check.verdict(passed), str(len(errors)), *(f"{errors[key]:.1e} ({key})" for key in worst)]


def _inferred_numbers(case: ReferenceCase, device: torch.device) -> dict[str, Tensor]:
    """Latents, rates, bound, and the norms of its gradient in every published tensor."""
    levels, noise = case.levels.to(device), [draw.to(device) for draw in case.groups("noise")]
    passed = case.model.infer(levels, noise)
    described = describe_pass(case.model, passed)
    target = case.model.pixel_scale.target_from_levels(levels)
    terms = evaluate_objective(ObjectiveSettings(alpha_T=0), described, target, alpha=0.0)
    terms.total.backward()
    gradients = {name: p.grad for name, p in case.model.named_parameters() if p.grad is not None}
    rates = group_rates_nats(described.posteriors, described.priors).unbind(1)
    return (
        {f"latent/{index:03d}": latent for index, latent in enumerate(described.latents)}
        | {f"kl/{index:03d}": rate for index, rate in enumerate(rates)}
        | {"px_z": passed.output, "mixture": case.model.mixture_output(passed.output).permute(0, 2, 3, 1)}
        | {"elbo": terms.negative_elbo, "rate": terms.rate, "distortion": terms.distortion}
        | {f"gradnorm/{name}": g.norm() for name, g in to_published(case.model, gradients).items()}
    )


@torch.no_grad()
def _decoded_numbers(case: ReferenceCase, device: torch.device) -> dict[str, Tensor]:
    """Passes without an image: from the prior, and from all latents."""
    batch, noise = len(case.levels), [draw.to(device) for draw in case.groups("prior_noise")]
    given = [Given(latent.to(device)) for latent in case.groups("latent")]
    prior = case.model.generate(batch, noise, temperature=0.7)
    return {"px_z_prior_t07": prior.output, "px_z_given": case.model.top_down(given, batch).output}


def check_losses(check: Check) -> None:
    """The same losses in the three precisions, without any training."""
    check.report.table("Losses by precision, nats/dim", ("model", "verdict", *PRECISIONS, "bf16 - fp32", "fp16 - fp32"))
    label = f"{SMALL}, {small_start(settings_of(SMALL))[1]}: bound of {BOUND_IMAGES} held-out images"
    check.row(label, 5, lambda: _difference_cells(check, _small_bound(check)))
    for term in ("negative_elbo", "total"):
        label = f"{BIG}, random weights: {term}"
        check.row(label, 10, lambda term=term: _difference_cells(check, _big_loss(check, term)))


def _difference_cells(check: Check, loss: Callable[[str], float]) -> list[str]:
    with exact_float32():
        exact, bf16, fp16 = (loss(precision) for precision in PRECISIONS)
    differences = [(value - exact) / abs(exact) for value in (bf16, fp16)]
    passed = all(abs(difference) <= BF16_TOLERANCE for difference in differences)
    values = [f"{value:.5f}" for value in (exact, bf16, fp16)]
    return [check.verdict(passed), *values, *(f"{difference:+.3%}" for difference in differences)]


def _small_bound(check: Check) -> Callable[[str], float]:
    settings = settings_of(SMALL)
    training = build_training(settings, check.world, small_start(settings)[0])
    starts = range(0, BOUND_IMAGES, BOUND_BATCH)
    batches = [small_images(start, BOUND_BATCH, training=False) for start in starts]

    def bound(precision: str) -> float:
        with autocast(check.world.device, precision):  # type: ignore[arg-type]
            return evaluate_bound(training.model, batches, seed=0, world=check.world).negative_elbo

    return bound


def _big_loss(check: Check, term: str) -> Callable[[str], float]:
    settings = settings_of(BIG)
    model = build_training(settings, check.world, StartWeights(None, None)).model
    levels = generated_images(settings.model, 2).pixels.to(check.world.device).float()
    noise = PassNoise(model, len(levels), check.world.device)
    noise.draw(0)

    @torch.no_grad()
    def loss(precision: str) -> float:
        with autocast(check.world.device, precision):  # type: ignore[arg-type]
            return float(getattr(batch_terms(model, settings.objective, levels, noise, 1.0), term))

    return loss


def check_precisions(check: Check) -> None:
    """The same 200 steps in the three precisions: they must end at the same loss."""
    columns = ("precision", "verdict", f"-ELBO, last {LAST_STEPS} steps", "against fp32", "LR", "skipped", "loss scale")
    weights = small_start(settings_of(SMALL))[1]
    check.report.table(f"{PRECISION_STEPS} LR steps of {SMALL} from {weights}, batch 16, CUDA graph", columns)
    losses: dict[str, float] = {}
    for precision in PRECISIONS:
        check.row(precision, 10, lambda precision=precision: _precision_cells(check, precision, losses))


def _precision_cells(check: Check, precision: str, losses: dict[str, float]) -> list[str]:
    settings = settings_of(SMALL, precision=precision, n_batch=16, iters=PRECISION_STEPS)
    with exact_float32():
        training = build_training(settings, check.world, small_start(settings)[0])
        batches = [small_images(start, 16, training=True) for start in range(0, 16 * PRECISION_STEPS, 16)]
        for iteration, batch in enumerate(batches):
            if iteration == PRECISION_STEPS - LAST_STEPS:
                training.sums.zero_()
                training.finite_steps.zero_()
            training(iteration, settings.objective.alpha_at(iteration, PRECISION_STEPS), [batch])
    loss, _, _, reconstruction = (training.sums / training.finite_steps).tolist()
    losses[precision] = loss
    difference = loss / losses.get("fp32", loss) - 1
    skipped, scale = int(training.optimiser.skipped), training.optimiser.scaler.get_scale()
    found = f"{loss:.5f} {difference:+.3%} {reconstruction:.5f} {skipped} {scale:g}"
    return [check.verdict(abs(difference) <= BF16_TOLERANCE), *found.split()]


def check_steps(check: Check) -> None:
    """The full model with and without LR at 1 and 8 images."""
    check.report.table(f"20 steps of {BIG} (random weights, generated images), median", STEP_COLUMNS)
    for images in (1, 8):
        _step_rows(check, [StepCase(images, objective) for objective in ("ELBO", "LR", "LR, prior latents")])
    _step_rows(check, [StepCase(1, objective, "eager") for objective in ("ELBO", "LR")])


def check_more_steps(check: Check) -> None:
    """What else the step can do; the first to go when time is short."""
    check.report.table(f"{BIG}: variants", STEP_COLUMNS)
    both = ("ELBO", "LR")
    _step_rows(check, [StepCase(8, objective, recompute=True) for objective in both])
    _step_rows(check, [StepCase(images, objective, autotune=True) for images in (1, 8) for objective in both])
    _step_rows(check, [StepCase(1, "LR, mean image"), StepCase(1, "LR", recompute=True)])
    for precision in ("fp16", "fp32"):  # fp32 as torch computes it by default, convolutions in TF32
        _step_rows(check, [StepCase(1, objective, precision=precision) for objective in both])


def check_compiled_steps(check: Check) -> None:
    """Compiled blocks in a graph, in a process that can be ended when it compiles for too long."""
    check.report.table(f"{BIG}: compiled blocks and CUDA graph", STEP_COLUMNS)
    for objective in ("ELBO", "LR"):
        case = StepCase(1, objective, "compile + graph")
        needed = 0 if check.force_compile else COMPILE_SECONDS
        check.row(str(case), needed, lambda case=case: _compiled_cells(check, case))


def _compiled_cells(check: Check, case: StepCase) -> list[str]:
    try:
        measured = measure_apart(case, "cuda", None if check.force_compile else check.seconds_left)
    except TimeoutError as error:
        return [f"{error}; --compile gives it all the time it wants"]
    check.steps[case] = measured
    return step_cells(case, measured, check.steps)


def _step_rows(check: Check, cases: Sequence[StepCase]) -> None:
    for case in cases:
        check.row(str(case), 15, lambda case=case: _step_cells(check, case))


def _step_cells(check: Check, case: StepCase) -> list[str]:
    measured = measure_if_it_fits(check.world, case)
    note = ""
    if measured is None:
        check.report.row(str(case), "does not fit; once more with activations recomputed")
        measured, note = measure_step(check.world, replace(case, recompute=True)), " (recomputed)"
    check.steps[case] = measured
    return step_cells(case, measured, check.steps, note)


def check_behaviour(check: Check) -> None:
    """What a step must not do, on the small model."""
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
    """The loader pins its batches in a thread, and may do so while the first step is captured."""
    stop, errors = threading.Event(), list[Exception]()

    def pin() -> None:
        held = []
        try:
            while not stop.is_set():
                held.append(torch.empty(1 << 16, dtype=torch.uint8).pin_memory())
                time.sleep(0.001)
        except Exception as error:  # reported as the row's result
            errors.append(error)

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        _run_small(_small_training(check, "bf16", graph=True), 0, 2)
    finally:
        stop.set()
        thread.join()
    return [check.verdict(not errors), str(errors[0]).partition("\n")[0] if errors else "captured and replayed"]


def check_tests(check: Check) -> None:
    """The tests that need a card."""
    check.report.table("Tests", ("command", "verdict", "last line"))
    check.row("python -m pytest -m cuda -q", 20, lambda: _pytest_cells(check))


def _pytest_cells(check: Check) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=check.seconds_left, check=False)
    passed = done.returncode in (0, 5)  # 5: no test is marked
    if not passed:
        print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
    return [check.verdict(passed), (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]]


SECTIONS: dict[str, Callable[[Check], None]] = {
    "parity": check_parity,
    "losses": check_losses,
    "steps": check_steps,
    "precisions": check_precisions,
    "tests": check_tests,
    "variants": check_more_steps,
    "behaviour": check_behaviour,
    "compile": check_compiled_steps,
}


def main() -> int:
    """Run the sections asked for, in order of importance; 0 when nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything (default: 8)")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile however long it takes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/gpu_check.md", help="the table's file")
    options = parser.parse_args()
    sections: list[str] = options.sections.split(",")
    if unknown := [name for name in sections if name not in SECTIONS]:
        parser.error(f"there is no section '{unknown[0]}'; choose from {', '.join(SECTIONS)}")
    deadline = time.monotonic() + 60 * options.minutes
    if not torch.cuda.is_available():
        print("error: this check needs a CUDA card, and torch sees none on this machine.", file=sys.stderr)
        return 1
    world = start_world("cuda")
    report = Report(options.out)
    check = Check(world, report, deadline, options.compile)
    report.line(f"# One CUDA card\n\n`{' '.join(['python', *sys.argv])}`\n\n{describe_machine(world.device)}")
    for name in sections:
        SECTIONS[name](check)
    report.line("\nNothing failed." if check.sound else "\nSOMETHING FAILED.")
    return 0 if check.sound else 1


if __name__ == "__main__":
    sys.exit(main())
