"""AdamW with warm-up, clipping, an average of the weights, and a skip rule that never asks the host.

An update is skipped if its gradient is not finite or its norm is at or above `skip_threshold` (Child 2020 uses this
against rare exploding batches). The decision stays on the device: fused AdamW takes it as `found_inf`, and does not
count a skipped update.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from vdvae_lr.errors import InputError
from vdvae_lr.hub.weight_folder import checksum
from vdvae_lr.setting_checks import Between, Count, CountOrNone, check_settings
from vdvae_lr.training.weights import FlatWeights

_MOMENTS = ("exp_avg", "exp_avg_sq")
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
    encoder_steps: Annotated[int, Between(0, 100_000)] = 0
    """Lagging VAE: in each iteration at most so many updates of the encoder alone, then one of the decoder alone, until
    the held-out images' mutual information no longer rises; 0: every iteration updates both.
    """
    encoder_check_iters: CountOrNone = 0
    """With encoder_steps: iterations between measurements of that mutual information; 0: an epoch."""
    encoder_patience: Count = 5
    """With encoder_steps: after so many measurements below the highest one, every iteration updates both."""
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
        self._rules = [_build_rule(part, settings) for part in weights.parts]

    def step(self, iteration: int, moving: Sequence[bool] | None = None) -> None:
        """Clip, decide, update and average, all on the device (except with apex).

        A step for which some process lacked images changes nothing, and does not count as skipped. `moving` says which
        parts of the weights are updated; None: all.
        """
        for rule in self._rules:
            rule.param_groups[0]["lr"] = self.settings.lr_at(iteration, self._run_iterations)
            self.scaler.unscale_(rule)  # type: ignore[arg-type] # only reads param_groups; nothing without loss scaling
        gradients = self.weights.gradients
        torch.linalg.vector_norm(gradients, out=self.gradient_norm)
        threshold = self.settings.skip_threshold if self.settings.skip_threshold >= 0 else float("inf")
        whole = self.weights.lacks_images == 0
        apply = (self.gradient_norm < threshold) & whole  # false for NaN, and for infinity whatever the threshold
        gradients.mul_((self.settings.grad_clip / (self.gradient_norm + 1e-6)).clamp(max=1.0))
        moved = zip(self._rules, moving or [True] * len(self._rules), strict=True)
        self._update([rule for rule, moves in moved if moves], apply)
        self.scaler.update()
        applied = apply.float()
        if len(self.weights.statistics):
            self.weights.statistics.add_(torch.where(apply, self.weights.statistics_change, 0))
        self.ema.update(self.weights.state, applied)
        self.skipped += whole * (1 - applied)
        self.consecutive_skips.add_(whole).mul_(1 - applied)

    def _update(self, rules: Sequence["_FusedAdamW | torch.optim.Optimizer"], apply: Tensor) -> None:
        for rule in rules:
            if isinstance(rule, _FusedAdamW):
                rule.step(skip=~apply)
            elif bool(apply):  # apex cannot be told to skip; the one place that waits for the device
                rule.step()

    def flat_state(self) -> dict[str, Tensor]:
        """Buffers by name: "state" and "average" (N + M,), and AdamW's "exp_avg" and "exp_avg_sq" (N,).

        Before the first update AdamW has none.
        """
        states = self._states()
        moments = {}
        for kind in _MOMENTS:
            if any(kind in state for state in states):
                parts = zip(states, self.weights.parts, strict=True)
                found = [state[kind] if kind in state else torch.zeros_like(part) for state, part in parts]
                moments[kind] = found[0] if len(found) == 1 else torch.cat(found)
        return {"state": self.weights.state, "average": self.ema.average} | moments

    def _states(self) -> list[dict[str, Any]]:
        """AdamW's state of each part; empty before its first update."""
        return [rule.state.get(part, {}) for rule, part in zip(self._rules, self.weights.parts, strict=True)]

    def checksum(self) -> int:
        """A number from every bit of `flat_state`; waits for the device."""
        return checksum(self.flat_state().values())

    def update_count(self) -> Tensor:
        """The number of updates by which AdamW corrects the bias of its averages, float32 on the CPU: () or, of two
        parts, (2,).
        """
        counts = []
        for rule, state in zip(self._rules, self._states(), strict=True):
            count = state.get("step", rule.param_groups[0].get("step", 0))
            counts.append(torch.as_tensor(count, dtype=torch.float32).cpu().reshape(()))
        return torch.stack(counts) if len(counts) > 1 else counts[0].clone()

    def load_moments(self, moments: Mapping[str, Mapping[str, Tensor]], update_count: Tensor) -> None:
        """Take over AdamW's averages, by kind and parameter name, and its count. Without averages, do nothing."""
        if not moments:
            return
        sizes = [part.numel() for part in self.weights.parts]
        averages = {kind: self.weights.buffer_from(named).split(sizes) for kind, named in moments.items()}
        counts = update_count.reshape(-1).expand(len(sizes))
        for number, (rule, part) in enumerate(zip(self._rules, self.weights.parts, strict=True)):
            entry: dict[str, Any] = {kind: parts[number] for kind, parts in averages.items()}
            if self.settings.optimizer == "apex":
                rule.param_groups[0]["step"] = int(counts[number])
            else:
                entry["step"] = counts[number].to(part.device).clone()
            rule.state[part] = entry


class _FusedAdamW:
    """Torch's fused AdamW of one parameter, with the attributes of `torch.optim.AdamW` that are read here.

    The class of torch imports its compiler when it is made, which took 1.3 s of the start of every run. The function
    does not.
    """

    def __init__(self, part: nn.Parameter, **group: Any) -> None:
        self.param_groups = [{"params": [part], **group}]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self, skip: Tensor) -> None:
        """Update the parameter, unless `skip` () holds; then it is not counted either. Nothing waits for the device."""
        (group,) = self.param_groups
        (part,) = group["params"]
        if part not in self.state:
            count = torch.zeros((), device=part.device)
            self.state[part] = {"step": count} | {kind: torch.zeros_like(part) for kind in _MOMENTS}
        state = self.state[part]
        adamw(
            [part],
            [part.grad],
            exp_avgs=[state["exp_avg"]],
            exp_avg_sqs=[state["exp_avg_sq"]],
            max_exp_avg_sqs=[],
            state_steps=[state["step"]],
            fused=True,
            found_inf=skip.float(),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _build_rule(part: nn.Parameter, settings: OptimisationSettings) -> _FusedAdamW | torch.optim.Optimizer:
    arguments: dict[str, Any] = {
        "lr": settings.lr,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "weight_decay": settings.wd,
        "eps": 1e-8,
    }
    if settings.optimizer == "adamw":
        return _FusedAdamW(part, **arguments)
    try:
        from apex.optimizers import FusedAdam
    except ImportError:
        raise InputError("optimizer is apex, but NVIDIA's apex cannot be imported; use --optimizer adamw.") from None
    rule: torch.optim.Optimizer = FusedAdam([part], adam_w_mode=True, **arguments)
    return rule
