"""One training step: micro-batches accumulate a gradient, one reduction, one update; nothing waits for the device.

A micro-batch depends on its pixels, its noise, α and β alone, which lie in buffers at fixed addresses. So on CUDA the
whole forward and backward pass can be captured once as a graph and replayed. With one image per card, launching
thousands of kernels one by one would take most of the time.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.errors import InputError
from vdvae_lr.losses.objective import ObjectiveSettings, ObjectiveTerms, evaluate_objective
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.processes.cuda_graph import captured, release_memory
from vdvae_lr.processes.world import World
from vdvae_lr.training.optim import Optimiser

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
TERM_NAMES = (
    *("negative_elbo_nats_per_dim", "rate_nats_per_dim", "distortion_nats_per_dim"),
    "latent_reconstruction",  # in the unit of its form
)
"""The running sums, by their names in the log."""
NEVER = 2**62
"""More steps than any run has."""
_TRIALS = 3
_WARMUP_CALLS = 3  # before a graph is captured, cuDNN has to choose its algorithms and AMP its scale


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """A context in which convolutions run in `precision`. Their sums, KL and likelihood stay in float32."""
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision != "fp32")


def batch_terms(
    model: LatentModel,
    settings: ObjectiveSettings,
    levels: Tensor,
    noise: PassNoise,
    alpha: float | Tensor,
    beta: float | Tensor | None = None,
) -> ObjectiveTerms:
    """The objective for images given as levels (B, C, H, W); `beta` None is that of the settings."""
    needs_reencoding = settings.uses_lr
    from_prior = needs_reencoding and settings.lr_latents == "prior"
    inferred = model.infer(levels, noise.posterior, keep_contexts=needs_reencoding and not from_prior)
    generated = None
    if from_prior:
        generated = model.generate(levels.shape[0], noise.prior, keep_contexts=True)
    target = model.pixel_scale.target_from_levels(levels)
    return evaluate_objective(
        settings, model, inferred, target, alpha, noise.image, generated, beta=beta, cutoff=noise.cutoff
    )


class TrainingStep:
    """Runs steps on this process, and keeps running sums of what they measured on the device.

    Args:
        model: a model on its device; its parameters are views into `optimiser.weights`.
        optimiser: what updates the weights from the accumulated gradient.
        objective: settings of the loss.
        world: this process among its peers.
        n_batch: images of one micro-batch.
        micro_batches: micro-batches of one step, over all processes.
        seed: seed of the training noise.
        precision: precision of the convolutions.
        cuda_graph: capture the micro-batch once and replay it (CUDA only).
        compiled: parts of the model are compiled; steps use them so, also where `prepared_run` turned the compiler off.

    Attributes:
        compiled: whether steps use the compiler.
        n_batch: images of one micro-batch.
        local_micro_batches: micro-batches of one step on this process.
        beta: β of the last step.
        reading_error: why this process can no longer read its images; None while it can.
        unread_step: the step whose images it could not read; `NEVER` while it can.
    """

    def __init__(
        self,
        model: LatentModel,
        optimiser: Optimiser,
        objective: ObjectiveSettings,
        world: World,
        *,
        n_batch: int,
        micro_batches: int,
        seed: int,
        precision: Precision = "fp32",
        cuda_graph: bool = False,
        compiled: bool = False,
    ) -> None:
        device = world.device
        self.model = model
        self.optimiser = optimiser
        self.objective = objective
        self.world = world
        self.sums = torch.zeros(len(TERM_NAMES), dtype=torch.float64, device=device)
        self.finite_steps = torch.zeros((), dtype=torch.float64, device=device)
        self.precision: Precision = precision
        self.n_batch = n_batch
        self.local_micro_batches = micro_batches // world.size
        self.reading_error: InputError | None = None
        self.unread_step = NEVER
        self._seed = seed
        self._local_share = world.size / micro_batches
        self._step_terms = torch.zeros(len(TERM_NAMES), device=device)
        self._alpha = torch.zeros((), device=device)
        self.beta = objective.beta_at(0)
        self._beta = torch.zeros((), device=device)
        shape = (n_batch, *model.image_shape)
        self._pixels = torch.zeros(shape, dtype=torch.uint8, device=device).to(memory_format=torch.channels_last)
        uses_lr = objective.uses_lr
        self.noise = PassNoise(
            model,
            n_batch,
            device,
            prior=uses_lr and objective.lr_latents == "prior",
            image=uses_lr and objective.lr_image == "sample",
            cutoff=objective.draws_cutoffs,
        )
        self._captures = self._capture_at_first_use = cuda_graph and device.type == "cuda"
        self._accumulate: Callable[[], None] = self._forward_backward
        self.compiled = compiled

    def __call__(
        self,
        iteration: int,
        alpha: float,
        batches: Iterable[Batch],
        moving: Sequence[bool] | None = None,
        draws: tuple[str, int] | None = None,
    ) -> None:
        """One update from this process's micro-batches of the step; their pixels may lie on any device.

        `moving` says which parts of the weights are updated, as `Optimiser.step` takes it. `draws` names the noise of
        an update beside the iteration's own.

        If some process cannot read its images (`batches` raises InputError), it still takes part in the reduction. From
        then on no step changes anything on any process. So all of them keep the state after the last whole step, until
        they learn of the error.
        """
        weights = self.optimiser.weights
        self.beta = self.objective.beta_at(iteration)
        self._alpha.fill_(alpha)
        self._beta.fill_(self.beta)
        self._step_terms.zero_()
        weights.message.zero_()
        try:
            for batch in batches:
                self._take(batch, *draws or ("train", iteration))
        except InputError as error:
            self.reading_error, self.unread_step = error, iteration
        weights.lacks_images.fill_(self.reading_error is not None)
        self.world.all_reduce_mean_(weights.message)
        self.optimiser.step(iteration, moving)
        counted = self._step_terms.isfinite().all() & (weights.lacks_images == 0)
        self.sums += torch.where(counted, self._step_terms, 0)
        self.finite_steps += counted

    def _take(self, batch: Batch, purpose: str, number: int) -> None:
        """Add a micro-batch's gradient to the buffer and its terms to the step's."""
        self._pixels.copy_(batch.pixels, non_blocking=True)
        self.noise.draw(purpose, self._seed, number, first=batch.micro_batch * self.n_batch)
        if self._capture_at_first_use:
            self._accumulate = self._captured()
            self._capture_at_first_use = False
        self._accumulate()

    def use(self, *, compiled: bool) -> None:
        """Compute with or without the compiler from now on."""
        self.compiled = compiled
        self._accumulate = self._forward_backward
        self._capture_at_first_use = self._captures
        if self._captures:
            release_memory()  # of an earlier graph

    def trial(self, batch: Batch, *, compiled: bool) -> tuple[Tensor, float]:
        """`use(compiled)`, then the gradient of one micro-batch (N,) and the seconds of another. Nothing is updated."""
        weights = self.optimiser.weights
        self.use(compiled=compiled)
        self._alpha.fill_(1)
        self._beta.fill_(1)
        weights.message.zero_()
        self._take(batch, "trial", 0)
        gradient = weights.gradients.clone()
        seconds = []
        for number in range(1, 1 + _TRIALS):
            self._step_terms.sum().item()  # waits for the device, and for no other process
            start = time.perf_counter()
            self._take(batch, "trial", number)
            self._step_terms.sum().item()
            seconds.append(time.perf_counter() - start)
        return gradient, min(seconds)

    def loss(self) -> float:
        """β·rate + distortion + α·LR of the last step, of the global batch; free bits aside. Waits for the device."""
        _, rate, distortion, reconstruction = self._step_terms
        own = self._beta * rate + distortion + self._alpha * reconstruction
        return float(self.world.all_reduce_mean_(own))

    def gather_sums(self) -> None:
        """Add all processes' running sums up on the main process, which writes them into checkpoints and the log."""
        gathered = self.world.all_reduce_sum_(torch.cat([self.sums, self.finite_steps[None]])) * self.world.is_main
        self.sums.copy_(gathered[:-1])
        self.finite_steps.copy_(gathered[-1])

    def _forward_backward(self) -> None:
        """Add one micro-batch's gradient to the buffer and its terms to the step's."""
        weights = self.optimiser.weights
        stance = torch.compiler.set_stance("default") if self.compiled else nullcontext()
        with stance, weights.collecting_statistics(self._local_share):
            with autocast(self.world.device, self.precision):
                levels = self._pixels.float()
                terms = batch_terms(self.model, self.objective, levels, self.noise, self._alpha, self._beta)
            # `_local_share` and the reduction's mean over processes together make the mean over the global batch.
            weights.backward(self.optimiser.scaler.scale(terms.total * self._local_share))
        reconstruction = terms.latent_reconstruction
        values = [terms.negative_elbo, terms.rate, terms.distortion]
        values.append(torch.zeros_like(terms.rate) if reconstruction is None else reconstruction)
        self._step_terms += torch.stack(values).detach().float() * self._local_share

    def _captured(self) -> Callable[[], None]:
        """`_forward_backward` as a CUDA graph over the buffers. The buffers keep their content."""
        message = self.optimiser.weights.message
        before = message.clone()
        replay = captured(self._forward_backward, _WARMUP_CALLS)
        message.copy_(before)
        self._step_terms.zero_()
        return replay
