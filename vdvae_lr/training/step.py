"""One training step: micro-batches accumulate a gradient, one reduction, one update; nothing waits for the device.

A micro-batch is a function of its pixels, its noise and α alone, all in buffers at fixed addresses, so on CUDA the
whole forward and backward pass can be captured once as a graph and replayed: at one image a card the launch of
thousands of kernels is what takes time.
"""

from collections.abc import Callable, Iterable
from typing import Literal, Protocol

import torch
from torch import Tensor

from vdvae_lr.losses.objective import ObjectiveSettings, ObjectiveTerms, evaluate_objective
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World
from vdvae_lr.training.optim import Optimiser

Precision = Literal["fp32", "bf16", "fp16"]
AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
TERM_NAMES = ("negative_elbo", "rate", "distortion", "latent_reconstruction")
_WARMUP_CALLS = 3  # cuDNN picks its algorithms and AMP its scale before a graph is captured


class MicroBatch(Protocol):
    """What the loader yields: pixels (n_batch, C, H, W) uint8, and the micro-batch's number among all of its step's."""

    @property
    def pixels(self) -> Tensor:
        """(n_batch, C, H, W) uint8, on any device."""

    @property
    def micro_batch(self) -> int:
        """0 … micro_batches − 1, over all processes."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which convolutions run in `precision`; their sums, KL and likelihood stay in float32."""
    return torch.autocast(device.type, dtype=AUTOCAST.get(precision), enabled=precision != "fp32")


def batch_terms(
    model: LatentModel, settings: ObjectiveSettings, levels: Tensor, noise: PassNoise, alpha: float | Tensor
) -> ObjectiveTerms:
    """The objective of images given as levels (B, C, H, W)."""
    needs_reencoding = settings.alpha_T > 0
    from_prior = needs_reencoding and settings.lr_latents == "prior"
    inferred = model.infer(levels, noise.posterior, keep_contexts=needs_reencoding and not from_prior)
    generated = None
    if from_prior:
        generated = model.generate(levels.shape[0], noise.prior, keep_contexts=True)
    target = model.pixel_scale.target_from_levels(levels)
    return evaluate_objective(settings, model, inferred, target, alpha, noise.image, generated)


class TrainingStep:
    """Runs steps on this process and keeps running sums of what they measured, on the device.

    Args:
        model: on its device; its parameters are views into `optimiser.weights`.
        optimiser: takes the accumulated gradient.
        objective: the loss.
        world: this process among its peers.
        n_batch: images of one micro-batch.
        micro_batches: micro-batches of one step, over all processes.
        seed: of the training noise.
        precision: of the convolutions.
        cuda_graph: capture the micro-batch once and replay it (CUDA only).

    Attributes:
        has_images: false from when this process can no longer read its images.
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
    ) -> None:
        device = world.device
        self.model = model
        self.optimiser = optimiser
        self.objective = objective
        self.world = world
        self.sums = torch.zeros(len(TERM_NAMES), dtype=torch.float64, device=device)
        self.finite_steps = torch.zeros((), dtype=torch.float64, device=device)
        self.precision: Precision = precision
        self.has_images = True
        self._seed = seed
        self._micro_batches = micro_batches
        self._local_share = world.size / micro_batches
        self._step_terms = torch.zeros(len(TERM_NAMES), device=device)
        self._alpha = torch.zeros((), device=device)
        shape = (n_batch, *model.image_shape)
        self._pixels = torch.zeros(shape, dtype=torch.uint8, device=device).to(memory_format=torch.channels_last)
        uses_lr = objective.alpha_T > 0
        self.noise = PassNoise(
            model,
            n_batch,
            device,
            prior=uses_lr and objective.lr_latents == "prior",
            image=uses_lr and objective.lr_image == "sample",
        )
        self._run: Callable[[], None] = self._forward_backward
        self._capture_at_first_use = cuda_graph and device.type == "cuda"

    def __call__(self, iteration: int, alpha: float, batches: Iterable[MicroBatch]) -> None:
        """One update from this process's micro-batches of the step.

        Where `has_images` is false on some process when its `batches` end, the step changes nothing on any: all of them
        then stand after the last whole step, although they learn of it later.
        """
        weights = self.optimiser.weights
        self._alpha.fill_(alpha)
        self._step_terms.zero_()
        weights.gradients.zero_()
        for batch in batches:
            self._pixels.copy_(batch.pixels, non_blocking=True)
            self.noise.draw(noise_key("train", self._seed, iteration, batch.micro_batch))
            if self._capture_at_first_use:
                self._run = self._captured()
                self._capture_at_first_use = False
            self._run()
        weights.lacks_images.fill_(not self.has_images)
        self.world.all_reduce_mean_(weights.message)
        self.optimiser.step(iteration)
        counted = self._step_terms.isfinite().all() & (weights.lacks_images == 0)
        self.sums += torch.where(counted, self._step_terms, 0)
        self.finite_steps += counted

    def gather_sums(self) -> None:
        """Move all processes' running sums to the main one, whose checkpoint carries them."""
        gathered = self.world.all_reduce_sum_(torch.cat([self.sums, self.finite_steps[None]])) * self.world.is_main
        self.sums.copy_(gathered[:-1])
        self.finite_steps.copy_(gathered[-1])

    def _forward_backward(self) -> None:
        """Add one micro-batch's gradient to the buffer and its terms to the step's."""
        with autocast(self.world.device, self.precision):
            terms = batch_terms(self.model, self.objective, self._pixels.float(), self.noise, self._alpha)
        # each process averages over its own share, the reduction over the processes: together, over the global batch
        self.optimiser.scaler.scale(terms.total * self._local_share).backward()
        reconstruction = terms.latent_reconstruction
        values = [terms.negative_elbo, terms.rate, terms.distortion]
        values.append(torch.zeros_like(terms.rate) if reconstruction is None else reconstruction)
        self._step_terms += torch.stack(values).detach().float() * self._local_share

    def _captured(self) -> Callable[[], None]:
        """`_forward_backward` as a CUDA graph over the buffers, which come back as they were."""
        gradients = self.optimiser.weights.gradients
        before = gradients.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP_CALLS):
                self._forward_backward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # the loader pins memory in its own thread
            self._forward_backward()
        gradients.copy_(before)
        self._step_terms.zero_()
        return graph.replay
