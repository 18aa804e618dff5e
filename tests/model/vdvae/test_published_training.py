"""Five optimiser steps of the published training loop, from the reference files (tests/reference/README.md)."""

import pytest
import torch
from closeness import relative_error
from reference_cases import NAMES, ReferenceCase, load_case
from torch import Tensor

from vdvae_lr.losses.objective import ObjectiveSettings, evaluate_objective

BOUND_COLUMN, NORM_COLUMN = 0, 1


def train(case: ReferenceCase, steps: int) -> Tensor:
    """AdamW with the same noise each step: the bound before it, and the gradient norm before clipping (steps, 2)."""
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=1e-3, betas=(0.9, 0.9), weight_decay=0.01, eps=1e-8)
    target, noise = case.model.pixel_scale.target_from_levels(case.levels), case.groups("noise")
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        passed = case.model.infer(case.levels, noise)
        bound = evaluate_objective(ObjectiveSettings(alpha_T=0), case.model, passed, target, alpha=0.0).total
        bound.backward()
        norm = torch.nn.utils.clip_grad_norm_(case.model.parameters(), 200.0)
        optimizer.step()
        history.append([bound.item(), norm.item()])
    return torch.tensor(history, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "bound_tolerance", "norm_tolerance"), [(torch.float64, 1e-9, 1e-9), (torch.float32, 1e-4, 1e-3)]
)
def test_five_steps_match(name: str, dtype: torch.dtype, bound_tolerance: float, norm_tolerance: float) -> None:
    case = load_case(name, dtype)
    expected = torch.from_numpy(case.numbers["train_elbo_and_gradnorm"])
    history = train(case, steps=len(expected))
    for step, (ours, published) in enumerate(zip(history, expected, strict=True)):
        assert relative_error(ours[BOUND_COLUMN], published[BOUND_COLUMN]) <= bound_tolerance, step
        assert relative_error(ours[NORM_COLUMN], published[NORM_COLUMN]) <= norm_tolerance, step
