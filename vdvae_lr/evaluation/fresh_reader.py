"""A reader trained afresh on a model's own samples: it tells a newly opened latent from nonsense.

The encoder from before fine-tuning cannot read latents that were closed when it was trained. So a new encoder and new
posterior networks of the model's architecture learn to read the model's samples: z ~ p(z), and x ~ p(x|z) rounded to
the data's levels. They maximise E[log q'(z|x) − log p(z)], the paper's eq. 5 with q' as its encoder. It is a lower
bound on I(Z;X) for every q'. The decoder is frozen, and the contexts of z_<l are those that its passes keep.

Shapes: B samples a step, C channels, H W resolution.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.evaluation.information import group_information_nats, measure_readers, sampled_pairs
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.evaluation.task import Task
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.model.noise import noise_key

READER_NOISE = "fresh reader"  # the purpose in noise keys: the reader is measured on samples that it never saw
_LARGEST_GRADIENT = 1.0  # norm, of a loss in nats/dim: rare samples far from the prior's mean must not throw it off
_WARM_UP = 0.05  # of the steps
_PARTS = 10  # of the training, in the details


class FreshReader:
    """q'(z_l | z_<l, x) of every group, by newly initialised networks of the architecture of `model`.

    The networks state how the posterior differs from the prior, in units of σ_p: N(μ_p + σ_p·m, (σ_p·s)²). So the
    latents' scale does not matter, and a group in which the reader finds nothing costs little: m near 0 and s near 1
    are the prior itself.
    """

    def __init__(self, model: LatentModel, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(noise_key(READER_NOISE, seed))
            network: LatentModel = type(model)(model.reader_config)
        self.network = network.to(model.weight)

    def __call__(self, passed: LatentPass, image: Tensor) -> tuple[DiagonalGaussian, ...]:
        """The posteriors, for a pass with kept contexts and images (B, C, H, W) on the target scale."""
        return tuple(
            DiagonalGaussian(
                torch.addcmul(prior.mean, prior.log_scale.exp(), read.mean), prior.log_scale + read.log_scale
            )
            for prior, read in zip(passed.priors, self.network.reencode(passed, image), strict=True)
        )


def train_reader(
    model: LatentModel, *, iterations: int, batch: int, lr: float, seed: int, tick: Callable[[], None]
) -> tuple[FreshReader, list[float]]:
    """Train a reader on `iterations` · `batch` samples of `model`, each seen once.

    Args:
        model: the model whose samples are read; it is not changed.
        iterations: steps of Adam.
        batch: samples a step.
        lr: the learning rate. It rises over the first steps, and then falls linearly to 0.
        seed: seed of the reader's first weights and of the samples.
        tick: called after each step.

    Returns:
        The reader, and what it read while it was trained (eq. 5 in nats/dim): the mean of each tenth of the steps.

    Raises:
        InputError: there are no samples to train on.
        UnmeasurableError: training diverged.
    """
    if iterations < 1 or batch < 1:
        raise InputError("a reader trained on no samples can read nothing; give it 1 iteration or more of 1 or more.")
    reader = FreshReader(model, seed)
    noise = ExampleNoise(model, READER_NOISE, seed, prior=True, image=True)
    optimiser = torch.optim.Adam(reader.network.parameters(), lr=lr)
    read = torch.zeros(iterations, dtype=torch.float64, device=model.device)
    for step in range(iterations):
        passed, image = sampled_pairs(model, noise.draw(range(step * batch, (step + 1) * batch)))
        information = group_information_nats(passed, reader(passed, image)).sum(1).mean() / model.dimensions
        optimiser.zero_grad()
        (-information).backward()
        torch.nn.utils.clip_grad_norm_(reader.network.parameters(), _LARGEST_GRADIENT)
        for group in optimiser.param_groups:
            group["lr"] = lr * min((step + 1) / (_WARM_UP * iterations), 1.0) * (1 - step / iterations)
        optimiser.step()
        read[step] = information.detach()
        tick()
    if not read.isfinite().all():
        raise UnmeasurableError("the training of a fresh reader diverged; lower --reader_lr.")
    reader.network.eval()
    parts = read.tensor_split(min(_PARTS, iterations))
    return reader, [part.mean().item() for part in parts]


def measure_fresh_reader(task: Task) -> Findings:
    """Eq. 5 by latent group with a reader trained afresh, on the samples that the model's own encoder is measured on.

    Every process trains the same reader by itself.

    Raises:
        UnmeasurableError: training diverged.
    """
    model, measuring, settings = task.model, task.measuring, task.settings
    if not settings.reader_iterations:
        return Findings()
    with measuring.counting("training a reader", settings.reader_iterations) as tick:
        reader, learning = train_reader(
            model,
            iterations=settings.reader_iterations,
            batch=settings.reader_batch,
            lr=settings.reader_lr,
            seed=measuring.seed,
            tick=tick,
        )
    title = "eq. 5, read by an encoder trained afresh"
    found = measure_readers(task, {"_fresh": (title, reader)}, "information that the reader finds")
    return found.and_also(Findings(details={"fresh_reader": {"unit": "nats/dim", "learning": learning}}))
