"""Check the numbers that a CUDA GPU computes: against the reference files, and in each precision.

These are sections of `gpu_check.py`.
"""

from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from benchmark import (
    SMALL,
    exact_float32,
    generated_images,
    settings_of,
    small_images,
    small_start,
    step_milliseconds,
)
from closeness import relative_error
from gpu_check_table import Check
from reference_cases import NAMES, ReferenceCase, load_case
from torch import Tensor

from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.vdvae.tensors import to_published
from vdvae_lr.losses.elbo import group_rates_nats
from vdvae_lr.losses.objective import ObjectiveSettings, evaluate_objective
from vdvae_lr.model.latent_model import FromPrior, Given, LatentSource
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.step import autocast, batch_terms

BIG = "ffhq256"
PRECISIONS = ("fp32", "bf16", "fp16")
PRECISION_STEPS, PRECISION_BATCH = 200, 16
SKIPPED_SHARE = 0.05  # fp16 skips a few updates to find its loss scale; a run that skips all of them proves nothing
BOUND_IMAGES, BOUND_BATCH = 256, 64
VALUE_TOLERANCE, GRADIENT_TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-3, 1e-2


def check_parity(check: Check) -> None:
    """Compare with the three reference files in float32."""
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
    """Latents, rates, the bound, and the norm of the bound's gradient for every published tensor."""
    levels, noise = case.levels.to(device), [draw.to(device) for draw in case.groups("noise")]
    passed = case.model.infer(levels, noise)
    target = case.model.pixel_scale.target_from_levels(levels)
    terms = evaluate_objective(ObjectiveSettings(alpha_T=0), case.model, passed, target, alpha=0.0)
    terms.total.backward()
    gradients = {name: p.grad for name, p in case.model.named_parameters() if p.grad is not None}
    state = _final_state(case, [Given(latent) for latent in passed.latents])
    rates = group_rates_nats(passed.posteriors, passed.priors).unbind(1)
    return (
        {f"latent/{index:03d}": latent for index, latent in enumerate(passed.latents)}
        | {f"kl/{index:03d}": rate for index, rate in enumerate(rates)}
        | {"px_z": state, "mixture": case.model.mixture_output(state).permute(0, 2, 3, 1)}
        | {"elbo": terms.negative_elbo, "rate": terms.rate, "distortion": terms.distortion}
        | {f"gradnorm/{name}": g.norm() for name, g in to_published(case.model, gradients).items()}
    )


@torch.no_grad()
def _decoded_numbers(case: ReferenceCase, device: torch.device) -> dict[str, Tensor]:
    """Numbers of passes without an image: from the prior, and with all latents given."""
    prior = [FromPrior(draw.to(device), 0.7) for draw in case.groups("prior_noise")]
    given = [Given(latent.to(device)) for latent in case.groups("latent")]
    return {"px_z_prior_t07": _final_state(case, prior), "px_z_given": _final_state(case, given)}


def _final_state(case: ReferenceCase, sources: Sequence[LatentSource]) -> Tensor:
    """The input of the output convolution: (B, C, H, W)."""
    state: Tensor = case.model.decoder(sources, len(case.levels), keep_states=False)[1]
    return state


def check_losses(check: Check) -> None:
    """Compare the losses in the three precisions, without training."""
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
    passed = all(abs(difference) <= HALF_TOLERANCE for difference in differences)
    values = [f"{value:.5f}" for value in (exact, bf16, fp16)]
    return [check.verdict(passed), *values, *(f"{difference:+.3%}" for difference in differences)]


def _small_bound(check: Check) -> Callable[[str], float]:
    settings = settings_of(SMALL)
    model = build_training(settings, check.world, small_start(settings)[0]).model
    return lambda precision: _held_out_bound(check, model, precision)


def _held_out_bound(check: Check, model: VDVAE, precision: str) -> float:
    """−ELBO of the first held-out images in `precision`, in nats/dim."""
    starts = range(0, BOUND_IMAGES, BOUND_BATCH)
    batches = [small_images(start, BOUND_BATCH, training=False) for start in starts]
    with autocast(check.world.device, precision):  # type: ignore[arg-type]
        return evaluate_bound(model, batches, seed=0, world=check.world).negative_elbo


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
    """Do the same 200 steps in the three precisions; the bounds of held-out images must then agree."""
    columns = (
        "precision",
        "verdict",
        "bound before",
        "bound after",
        "against fp32",
        "skipped",
        "loss scale",
        "ms/step",
    )
    weights = small_start(settings_of(SMALL))[1]
    title = f"{PRECISION_STEPS} LR steps of {SMALL} from {weights}, batch {PRECISION_BATCH}, CUDA graph"
    check.report.table(f"{title}; bound of {BOUND_IMAGES} held-out images, nats/dim", columns)
    bounds: dict[str, float] = {}
    for precision in PRECISIONS:
        check.row(precision, 15, lambda precision=precision: _precision_cells(check, precision, bounds))


def _precision_cells(check: Check, precision: str, bounds: dict[str, float]) -> list[str]:
    settings = settings_of(SMALL, precision=precision, n_batch=PRECISION_BATCH, iters=PRECISION_STEPS)
    with exact_float32():
        training = build_training(settings, check.world, small_start(settings)[0])
        starts = range(0, PRECISION_BATCH * PRECISION_STEPS, PRECISION_BATCH)
        batches = [small_images(start, PRECISION_BATCH, training=True) for start in starts]

        def step(iteration: int) -> None:
            training(iteration, settings.objective.alpha_at(iteration, PRECISION_STEPS), [batches[iteration]])

        before = _held_out_bound(check, training.model, precision)
        times = step_milliseconds(step, range(PRECISION_STEPS), check.world.device)
        bounds[precision] = after = _held_out_bound(check, training.model, precision)
    if "fp32" not in bounds:
        raise RuntimeError("there is no bound in float32 to compare with, because that row failed")
    difference = after / bounds["fp32"] - 1
    skipped, scale = int(training.optimiser.skipped), training.optimiser.scaler.get_scale()
    passed = abs(difference) <= HALF_TOLERANCE and skipped <= SKIPPED_SHARE * PRECISION_STEPS
    found = f"{before:.5f} {after:.5f} {difference:+.3%} {skipped} {scale:g} {median(times):.1f}"
    return [check.verdict(passed), *found.split()]
