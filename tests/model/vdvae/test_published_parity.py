"""Every number of the three reference files, which the published code computed (tests/reference/README.md)."""

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from closeness import relative_error
from reference_cases import NAMES, ReferenceCase, load_case
from torch import Tensor

from vdvae_lr.hub.vdvae.tensors import to_published
from vdvae_lr.losses.elbo import distortion_nats, group_rates_nats
from vdvae_lr.losses.objective import ObjectiveSettings, evaluate_objective
from vdvae_lr.model.latent_model import FromPrior, Given, LatentPass, LatentSource

GIVEN_TO_THE_MODEL = {"config", "param", "noise", "prior_noise", "pixels"}
MATCHED_BY_TRAINING = {"train_elbo_and_gradnorm"}  # test_published_training.py
KINDS = [
    "input",
    "target",
    "encoder",
    "latent",
    "kl",
    "px_z",
    "mixture",
    "distortion_nats_per_dim",
    "elbo",
    "rate",
    "distortion",
    "gradnorm",
    "px_z_prior_t07",
    "px_z_given",
    "px_z_half_given_t01",
]


def tolerance(kind: str, dtype: torch.dtype) -> float:
    """Allowed error, relative to the tensor's largest magnitude."""
    if dtype == torch.float64:
        return 1e-9
    return 1e-3 if kind == "gradnorm" else 1e-4


def encoder_numbers(case: ReferenceCase) -> dict[str, Tensor]:
    scale = case.model.pixel_scale
    numbers = {
        "input": scale.input_from_levels(case.levels).permute(0, 2, 3, 1),
        "target": scale.target_from_levels(case.levels).permute(0, 2, 3, 1),
    }
    features = case.model.encode(case.levels)
    return numbers | {f"encoder/{resolution}": feature for resolution, feature in features.items()}


def posterior_numbers(case: ReferenceCase, passed: LatentPass) -> dict[str, Tensor]:
    numbers = {f"latent/{index:03d}": latent for index, latent in enumerate(passed.latents)}
    rates = group_rates_nats(passed.posteriors, passed.priors)
    numbers |= {f"kl/{index:03d}": rate for index, rate in enumerate(rates.unbind(1))}
    target = case.model.pixel_scale.target_from_levels(case.levels)
    numbers["distortion_nats_per_dim"] = distortion_nats(passed.likelihood.log_prob(target)) / case.model.dimensions
    state = final_state(case, [Given(latent) for latent in passed.latents])
    return numbers | {"px_z": state, "mixture": case.model.mixture_output(state).permute(0, 2, 3, 1)}


def final_state(case: ReferenceCase, sources: Sequence[LatentSource]) -> Tensor:
    """What the published output convolution reads: (B, C, H, W)."""
    decoder = case.model.decoder
    return decoder(sources, len(case.levels), keep_states=False)[1] * decoder.gain + decoder.bias


def objective_numbers(case: ReferenceCase, passed: LatentPass) -> dict[str, Tensor]:
    """The bound and the norm of its gradient in every published tensor."""
    case.model.zero_grad()
    target = case.model.pixel_scale.target_from_levels(case.levels)
    terms = evaluate_objective(ObjectiveSettings(alpha_T=0), case.model, passed, target, alpha=0.0)
    terms.total.backward()
    gradients = {name: p.grad for name, p in case.model.named_parameters() if p.grad is not None}
    norms = {f"gradnorm/{name}": g.norm() for name, g in to_published(case.model, gradients).items()}
    return norms | {"elbo": terms.negative_elbo, "rate": terms.rate, "distortion": terms.distortion}


@torch.no_grad()
def decoding_numbers(case: ReferenceCase) -> dict[str, Tensor]:
    """Passes without an image: from the prior, from all latents, and from the first half of them."""
    noise = case.groups("prior_noise")
    given = [Given(latent) for latent in case.groups("latent")]
    half = len(given) // 2
    rest = [FromPrior(draw, temperature=0.1) for draw in noise[half:]]
    return {
        "px_z_prior_t07": final_state(case, [FromPrior(draw, 0.7) for draw in noise]),
        "px_z_given": final_state(case, given),
        "px_z_half_given_t01": final_state(case, [*given[:half], *rest]),
    }


@pytest.fixture(
    scope="module", params=product(NAMES, (torch.float64, torch.float32)), ids=lambda pair: f"{pair[0]}-{pair[1]}"
)
def case_and_numbers(request: pytest.FixtureRequest) -> tuple[ReferenceCase, dict[str, Tensor]]:
    """One reference file in one precision, and all our numbers under its names."""
    case = load_case(*request.param)
    passed = case.model.infer(case.levels, case.groups("noise"))
    numbers = encoder_numbers(case) | posterior_numbers(case, passed)
    return case, numbers | objective_numbers(case, passed) | decoding_numbers(case)


def test_every_number_of_the_file_is_compared(case_and_numbers: tuple[ReferenceCase, dict[str, Tensor]]) -> None:
    case, ours = case_and_numbers
    kinds = {name.split("/")[0] for name in case.numbers}
    assert kinds - GIVEN_TO_THE_MODEL - MATCHED_BY_TRAINING == set(KINDS)
    assert set(ours) == {name for name in case.numbers if name.split("/")[0] in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_match(case_and_numbers: tuple[ReferenceCase, dict[str, Tensor]], kind: str) -> None:
    case, ours = case_and_numbers
    names = [name for name in case.numbers if name.split("/")[0] == kind]
    errors = {name: relative_error(ours[name], torch.as_tensor(case.numbers[name])) for name in names}
    assert not {name: error for name, error in errors.items() if not error <= tolerance(kind, case.dtype)}


def test_half_of_the_groups_means_the_smaller_half() -> None:
    """With seven groups three are given: with four the numbers are others, so the file does tell which."""
    case = load_case("plain_8bit", torch.float64)
    given = [Given(latent) for latent in case.groups("latent")[:4]]
    rest = [FromPrior(draw, temperature=0.1) for draw in case.groups("prior_noise")[4:]]
    output = final_state(case, [*given, *rest])
    assert relative_error(output, case.tensor("px_z_half_given_t01")) > 1e-3
