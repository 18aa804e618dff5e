"""AdamW with warm-up, clipping, an average of the weights, and a skip rule that never asks the host.

An update is skipped if its gradient is not finite or its norm is at or above `skip_threshold` (Child 2020 uses this
against rare exploding batches). The decision stays on the device: fused AdamW takes it as `found_inf`, and does not
count a skipped update.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.hub.weight_folder import checksum
from vdvae_lr.setting_checks import Between, Count, CountOrNone, check_settings
from vdvae_lr.training.weights import FlatWeights

Decay = Annotated[float, Between(0, 1, below=True)]


@dataclass(frozen=True)
class OptimisationSettings:
    """How weights move. The defaults are the published values."""

    lr: Annotated[float, Between(0)] = 0.00015
    """Learning rate."""
    wd: Annotated[float, Between(0)] = 0.01
    """Weight decay (decoupled)."""
    adam_beta1: Decay = 0.9
    """Decay of the gradient's average."""
    adam_beta2: Decay = 0.9
    """Decay of the squared gradient's average."""
    warmup_iters: CountOrNone = 100
    """Iterations over which the learning rate rises linearly; 0: none."""
    lr_final_share: Annotated[float, Between(0, 1)] = 1.0
    """The learning rate falls linearly to this share of itself over the run; 1: constant, as published."""
    ema_rate: Decay = 0.999
    """Decay of the averaged weights."""
    grad_clip: Annotated[float, Between(0, above=True, infinite=True)] = 200.0
    """Largest gradient norm; a larger gradient is scaled down to it. inf: no clipping."""
    skip_threshold: Annotated[float, Between(-math.inf, infinite=True)] = 400.0
    """An update whose gradient norm reaches this is skipped; -1: only updates that are not finite."""
    max_consecutive_skips: Count = 100
    """End with advice after so many skipped updates in a row."""
    optimizer: Literal["adamw", "apex"] = "adamw"
    """adamw: torch's, fused; apex: NVIDIA apex's FusedAdam where it is installed (asks the host at every step)."""

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)

    def lr_at(self, iteration: int, run_iterations: int) -> float:
        """The learning rate of iteration 0, 1, …: linear warm-up, times the linear change to its final share."""
        warm_up = min(1.0, (iteration + 1) / self.warmup_iters) if self.warmup_iters else 1.0
        done = iteration / run_iterations if run_iterations else 0.0
        return self.lr * warm_up * (1 - done * (1 - self.lr_final_share))


class MovingAverage:
    """The exponential moving average of the weights (EMA), which samples and evaluates better than the weights.

    `average` (N + M,) ← rate · average + (1 − rate) · state, after every update that was not skipped (as published).
    """

    def __init__(self, state: Tensor, rate: float) -> None:
        self.average = state.detach().clone()
        self.rate = rate

    @torch.no_grad()
    def update(self, state: Tensor, applied: Tensor) -> None:
        """Update the average; `applied` () is 1 if the optimiser stepped and 0 if it skipped, still on the device."""
        self.average.lerp_(state, (1 - self.rate) * applied.to(state.dtype))


class Optimiser:
    """Updates the flat weights and their average from the accumulated gradient.

    Args:
        weights: values and gradients.
        settings: settings of the update.
        run_iterations: iterations over which the learning rate changes to its final share; 0: it stays.
        loss_scaling: the loss is multiplied by `scaler`, as float16 needs.

    Attributes:
        gradient_norm: () gradient norm of the last update, before clipping.
        skipped, consecutive_skips: () counters, on the device.
    """

    def __init__(
        self,
        weights: FlatWeights,
        settings: OptimisationSettings,
        *,
        run_iterations: int = 0,
        loss_scaling: bool = False,
    ) -> None:
        self.weights = weights
        self.settings = settings
        self._run_iterations = run_iterations
        self.ema = MovingAverage(weights.state, settings.ema_rate)
        device = weights.values.device
        self.scaler = torch.amp.GradScaler(device.type, enabled=loss_scaling)
        self.gradient_norm = torch.zeros((), dtype=weights.values.dtype, device=device)
        self.skipped = torch.zeros((), device=device)
        self.consecutive_skips = torch.zeros((), device=device)
        self._rule = _build_rule(weights, settings)

    def step(self, iteration: int) -> None:
        """Clip, decide, update and average, all on the device (except with apex).

        A step for which some process lacked images changes nothing, and does not count as skipped.
        """
        self._rule.param_groups[0]["lr"] = self.settings.lr_at(iteration, self._run_iterations)
        self.scaler.unscale_(self._rule)  # does nothing without loss scaling
        gradients = self.weights.gradients
        torch.linalg.vector_norm(gradients, out=self.gradient_norm)
        threshold = self.settings.skip_threshold if self.settings.skip_threshold >= 0 else float("inf")
        whole = self.weights.lacks_images == 0
        apply = (self.gradient_norm < threshold) & whole  # false for NaN, and for infinity whatever the threshold
        gradients.mul_((self.settings.grad_clip / (self.gradient_norm + 1e-6)).clamp(max=1.0))
        self._update(apply)
        self.scaler.update()
        applied = apply.float()
        self.weights.statistics.add_(torch.where(apply, self.weights.statistics_change, 0))
        self.ema.update(self.weights.state, applied)
        self.skipped += whole * (1 - applied)
        self.consecutive_skips.add_(whole).mul_(1 - applied)

    def _update(self, apply: Tensor) -> None:
        if self.settings.optimizer == "adamw":
            self._rule.found_inf = (~apply).float()  # type: ignore[attr-defined] # as GradScaler does
            self._rule.step()
        elif bool(apply):  # apex does not know found_inf; the one place that waits for the device
            self._rule.step()

    def flat_state(self) -> dict[str, Tensor]:
        """Buffers by name: "state" and "average" (N + M,), and AdamW's "exp_avg" and "exp_avg_sq" (N,).

        Before the first update AdamW has none.
        """
        state = self._rule.state.get(self.weights.values, {})
        moments = {kind: state[kind] for kind in ("exp_avg", "exp_avg_sq") if kind in state}
        return {"state": self.weights.state, "average": self.ema.average} | moments

    def checksum(self) -> int:
        """A number from every bit of `flat_state`; waits for the device."""
        return checksum(self.flat_state().values())

    def update_count(self) -> Tensor:
        """The number of updates () float32 on the CPU, by which AdamW corrects the bias of its averages."""
        state = self._rule.state.get(self.weights.values, {})
        steps = state.get("step", self._rule.param_groups[0].get("step", 0))
        return torch.as_tensor(steps, dtype=torch.float32).cpu().reshape(()).clone()

    def load_moments(self, moments: Mapping[str, Mapping[str, Tensor]], update_count: Tensor) -> None:
        """Take over AdamW's averages, by kind and parameter name, and its count. Without averages, do nothing."""
        if not moments:
            return
        entry: dict[str, Any] = {kind: self.weights.buffer_from(named) for kind, named in moments.items()}
        if self.settings.optimizer == "apex":
            self._rule.param_groups[0]["step"] = int(update_count)
        else:
            entry["step"] = update_count.to(self.weights.values.device).clone()
        self._rule.state[self.weights.values] = entry


def _build_rule(weights: FlatWeights, settings: OptimisationSettings) -> torch.optim.Optimizer:
    arguments: dict[str, Any] = {
        "lr": settings.lr,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "weight_decay": settings.wd,
        "eps": 1e-8,
    }
    if settings.optimizer == "adamw":
        return torch.optim.AdamW([weights.values], fused=True, **arguments)
    try:
        from apex.optimizers import FusedAdam
    except ImportError:
        raise InputError("optimizer is apex, but NVIDIA's apex cannot be imported; use --optimizer adamw.") from None
    rule: torch.optim.Optimizer = FusedAdam([weights.values], adam_w_mode=True, **arguments)
    return rule
