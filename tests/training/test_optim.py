"""The update: against torch's own AdamW and clipping, and the skip rule that stays on the device."""

import pytest
import torch
from torch import nn

from vdvae_lr.errors import InputError
from vdvae_lr.training.optim import OptimisationSettings, Optimiser
from vdvae_lr.training.weights import FlatWeights

SETTINGS = OptimisationSettings(lr=0.01, warmup_iters=0, ema_rate=0.9, grad_clip=1.0, skip_threshold=10.0)


def linear_pair() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def set_gradient(weights: FlatWeights, norm: float, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights.gradients.zero_()
    for view in weights.named(weights.gradients).values():
        view.copy_(torch.randn(view.shape, generator=generator, dtype=torch.float64))
    weights.gradients.mul_(norm / weights.gradients.norm())


@pytest.mark.parametrize("norm", [0.5, 5.0])
def test_steps_equal_adamw_with_clipping(norm: float) -> None:
    ours, theirs = linear_pair()
    weights = FlatWeights(ours)
    optimiser = Optimiser(weights, SETTINGS)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.9), weight_decay=0.01)
    for iteration in range(4):
        set_gradient(weights, norm, iteration)
        for name, gradient in weights.named(weights.gradients).items():
            theirs.get_parameter(name).grad = gradient.clone()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        reference.step()
        optimiser.step(iteration)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", [10.0, 1e6, float("inf"), float("nan")])
def test_a_skipped_update_changes_nothing_but_the_counters(norm: float) -> None:
    ours, _ = linear_pair()
    weights = FlatWeights(ours)
    optimiser = Optimiser(weights, SETTINGS)
    set_gradient(weights, 1.0)
    optimiser.step(0)
    values, average = weights.values.data.clone(), optimiser.ema.average.clone()
    steps = optimiser.update_count()
    set_gradient(weights, norm)
    optimiser.step(1)
    assert torch.equal(weights.values.data, values)
    assert torch.equal(optimiser.ema.average, average)
    assert torch.equal(optimiser.update_count(), steps)
    assert (int(optimiser.skipped), int(optimiser.consecutive_skips)) == (1, 1)


def test_a_good_update_ends_a_row_of_skips() -> None:
    weights = FlatWeights(linear_pair()[0])
    optimiser = Optimiser(weights, SETTINGS)
    for iteration, norm in enumerate([100.0, float("nan"), 1.0]):
        set_gradient(weights, norm)
        optimiser.step(iteration)
    assert (int(optimiser.skipped), int(optimiser.consecutive_skips)) == (2, 0)


def test_threshold_minus_one_skips_only_what_is_not_finite() -> None:
    weights = FlatWeights(linear_pair()[0])
    optimiser = Optimiser(weights, OptimisationSettings(skip_threshold=-1.0))
    for iteration, norm in enumerate([1e30, float("inf")]):
        set_gradient(weights, norm)
        optimiser.step(iteration)
    assert int(optimiser.skipped) == 1


def test_average_follows_its_rate() -> None:
    weights = FlatWeights(linear_pair()[0])
    optimiser = Optimiser(weights, SETTINGS)
    before = optimiser.ema.average.clone()
    set_gradient(weights, 1.0)
    optimiser.step(0)
    torch.testing.assert_close(optimiser.ema.average, 0.9 * before + 0.1 * weights.values.data)


def test_warm_up_reaches_the_learning_rate_and_zero_means_none() -> None:
    settings = OptimisationSettings(lr=1.0, warmup_iters=4)
    assert [settings.lr_at(i, 10) for i in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert OptimisationSettings(lr=1.0, warmup_iters=0).lr_at(0, 10) == 1.0


def test_learning_rate_falls_linearly_to_its_final_share() -> None:
    settings = OptimisationSettings(lr=1.0, warmup_iters=0, lr_final_share=0.1)
    assert [settings.lr_at(i, 10) for i in (0, 5, 10)] == pytest.approx([1.0, 0.55, 0.1])
    assert settings.lr_at(5, 0) == 1.0


def test_loss_scaling_gives_the_unscaled_update_and_backs_off_from_infinity() -> None:
    ours, theirs = linear_pair()
    scaled, plain = FlatWeights(ours), FlatWeights(theirs)
    with_scaling, without = Optimiser(scaled, SETTINGS, loss_scaling=True), Optimiser(plain, SETTINGS)
    with_scaling.scaler.scale(torch.zeros(()))
    scale = with_scaling.scaler.get_scale()
    set_gradient(scaled, 0.5)
    scaled.gradients.mul_(scale)
    set_gradient(plain, 0.5)
    with_scaling.step(0)
    without.step(0)
    torch.testing.assert_close(scaled.values, plain.values)
    set_gradient(scaled, float("inf"))
    with_scaling.step(1)
    assert with_scaling.scaler.get_scale() == scale / 2
    assert int(with_scaling.skipped) == 1


def test_apex_that_is_not_installed_is_named() -> None:
    with pytest.raises(InputError, match="apex cannot be imported; use --optimizer adamw"):
        Optimiser(FlatWeights(linear_pair()[0]), OptimisationSettings(optimizer="apex"))


@pytest.mark.parametrize(
    "changes",
    [{"lr": -1.0}, {"adam_beta1": 1.0}, {"grad_clip": 0.0}, {"lr": float("nan")}, {"max_consecutive_skips": 0}],
)
def test_impossible_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        OptimisationSettings(**changes)
