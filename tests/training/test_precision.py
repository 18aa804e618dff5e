"""Mixed precision that holds: distributions at extremes, the loss scale, and training that ends at the same bound.

What "extreme" means here. A convolution in float16 returns at most ±65504, in bfloat16 far more; the bundled model's
log-scales of latents lie in [−2.7, 0.9], its means in [−4.8, 3.3], its mixture's log-scales in [−6.5, −0.3].

- Means, mixture means, logits and coefficients: ±65504.
- Log-scales of latents: ±20, each of the two distributions by itself. The squared ratio of two scales and its gradient
  leave float32 at a difference of 44: a KL of e^88 nats has no float32 to stand in.
- Log-scales of the mixture: ±65504, since a logistic wider than an image is a plain 1/width, and costs a few nats.

Beyond that the loss may be infinite or NaN; then the update is skipped, and no weight changes. So it is where a float16
convolution's own gradient overflows, which the loss scale is there for.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from latent_groups import groups_of, output_of
from torch import Tensor
from torch.nn import functional as F
from training_runs import ALONE, assert_same_bits, batches_of, fingerprint, tiny_settings, tiny_training

from vdvae_lr.datasets.catalogue import open_splits
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.losses.latent_reconstruction import FORMS
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture, parameters_per_component
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.precision import full_precision
from vdvae_lr.training.checkpoint import CheckpointFolder, Snapshot, restore
from vdvae_lr.training.step import AUTOCAST, Precision, TrainingStep, autocast

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
FLOAT16_MAX = 65504.0
MINIMAL: dict[str, Any] = {
    "image_channels": 1,
    "enc_blocks": "8x1,8d8,1x1",
    "dec_blocks": "1x1,8m1",
    "n_batch": 8,
    "global_batch": 8,
}


def minimal_training(precision: Precision, **changes: Any) -> TrainingStep:
    """Two latent groups and grey images of 8×8; fp16 convolutions are slow on a CPU."""
    return tiny_training(**MINIMAL | {"precision": precision} | changes)


def grey_pixels(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def as_convolution_gives(values: Tensor, precision: Precision) -> Tensor:
    """`values` rounded to what a convolution returns, in float32 as the decoder hands them on: a leaf."""
    rounded = values.float().to(AUTOCAST.get(precision, torch.float32))
    return full_precision(rounded).clone().requires_grad_()


def assert_finite(values: Tensor, leaf: Tensor) -> None:
    """Values and their elementwise gradient; no sum, which would be one number for all."""
    (gradient,) = torch.autograd.grad(values, leaf, torch.ones_like(values), retain_graph=True)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert gradient.isfinite().all()


def extreme_gaussians(precision: Precision) -> tuple[Tensor, DiagonalGaussian, DiagonalGaussian]:
    """Every pair of extremes, equal ones among them: the leaf (4, N), and two Gaussians of (N,)."""
    log_scales, means = torch.tensor([-20.0, -7.0, 0.0, 20.0]), torch.tensor([-FLOAT16_MAX, 0.0, 1.0, FLOAT16_MAX])
    leaf = as_convolution_gives(torch.cartesian_prod(means, log_scales, means, log_scales).T, precision)
    return leaf, DiagonalGaussian(leaf[0], leaf[1]), DiagonalGaussian(leaf[2], leaf[3])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_kl_of_extremes_is_float64s(precision: Precision) -> None:
    with autocast(ALONE.device, precision):
        leaf, q, p = extreme_gaussians(precision)
        kl = q.kl_to(p)
    assert_finite(kl, leaf)
    exact = leaf.detach().double()
    expected = DiagonalGaussian(exact[0], exact[1]).kl_to(DiagonalGaussian(exact[2], exact[3]))
    torch.testing.assert_close(kl.detach().double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_log_prob_and_latent_reconstruction_of_extremes_are_finite(precision: Precision) -> None:
    """Of a latent three scales from its mean, gradients into everything: into the latent as well ("live")."""
    with autocast(ALONE.device, precision):
        leaf, drawn_from, reencoded = extreme_gaussians(precision)
        for noise in (-3.0, 0.0, 3.0):
            latent = drawn_from.sample(torch.full_like(drawn_from.mean, noise))
            assert_finite(latent, leaf)
            assert_finite(reencoded.log_prob(latent), leaf)
            for form in FORMS.values():
                assert_finite(form(latent, reencoded, drawn_from), leaf)


def extreme_mixture(
    precision: Precision, channels: int, log_scale: float, sign: float
) -> tuple[Tensor, LogisticMixture]:
    """Three components whose logits, means and coefficients are −65504, 0 and 65504: the leaf (1, n, 1, 256)."""
    extremes = sign * torch.tensor([-FLOAT16_MAX, 0.0, FLOAT16_MAX])
    numbers = torch.zeros(parameters_per_component(channels), 3)
    blocks = numbers[1:].view(channels, -1, 3)  # by channel: means, log-scales and, in colour, coefficients
    numbers[0] = extremes
    blocks[:] = extremes.flip(0)
    blocks[:, 1] = log_scale
    leaf = as_convolution_gives(numbers.view(1, -1, 1, 1).repeat(1, 1, 1, 256), precision)
    return leaf, LogisticMixture(leaf, channels, Bins.of_bits(8))


@pytest.mark.parametrize("log_scale", [-FLOAT16_MAX, -7.0, 20.0, 100.0, FLOAT16_MAX])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_extreme_mixture_has_finite_log_probs_means_and_samples(
    precision: Precision, channels: int, log_scale: float
) -> None:
    """A sample's scale overflows above a log-scale of 88, where the log-probability is an unspectacular −log-scale."""
    generator = torch.Generator().manual_seed(0)
    image = torch.linspace(-1, 1, 256).expand(1, channels, 1, 256)
    noise = [torch.rand(1, n, 1, 256, generator=generator) for n in (3, channels)]
    noise[1][..., 0] = 0.5  # the middle, where the logistic's factor is 0
    with autocast(ALONE.device, precision):
        for sign in (-1.0, 1.0):
            leaf, mixture = extreme_mixture(precision, channels, log_scale, sign)
            assert_finite(mixture.log_prob(image), leaf)
            for drawn in (mixture.mean(), mixture.sample(noise)):
                assert_finite(drawn, leaf)
                assert drawn.abs().max() <= 1


def test_a_sample_wider_than_any_image_is_still_a_coin() -> None:
    """The limit on a sampled scale shows in no image: ±1 by the side of the middle, as without it."""
    leaf = torch.tensor([0.0, 0.3, 41.0]).view(1, -1, 1, 1).repeat(1, 1, 1, 100)
    position = torch.linspace(0.01, 0.98, 100).view(1, 1, 1, 100)
    sample = LogisticMixture(leaf, 1, Bins.of_bits(8)).sample([torch.full_like(position, 0.5), position])
    assert torch.equal(sample, (position - 0.5).sign())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_number_of_a_pass_is_finite_and_distributions_are_float32(precision: Precision) -> None:
    """Inferred, generated and re-encoded, with every weight random so that no path is silent."""
    model = minimal_training("fp32").model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    noise = PassNoise(model, 2, ALONE.device, prior=True)
    noise.draw(1)
    outputs: list[torch.dtype] = []
    hook = model.decoder.blocks[0].residual.register_forward_hook(lambda *call: outputs.append(call[2].dtype))
    with autocast(ALONE.device, precision):
        inferred = model.infer(grey_pixels(2).float(), noise.posterior, keep_contexts=True)
        generated = model.generate(2, noise.prior)
        likelihoods = [passed.likelihood for passed in (inferred, generated)]
        assert noise.image is not None
        image = likelihoods[0].sample(noise.image)
        reencoded = model.reencode(inferred, image)
    hook.remove()
    assert outputs == [AUTOCAST.get(precision, torch.float32)] * 2  # the convolutions did run in `precision`
    groups = [*groups_of(inferred), *groups_of(generated)]
    gaussians = [*(group.prior for group in groups), *(group.posterior for group in groups_of(inferred)), *reencoded]
    numbers = [
        image,
        likelihoods[1].mean(),
        output_of(inferred),
        output_of(generated),
        *(group.latent for group in groups),
    ]
    numbers += [part for gaussian in gaussians if gaussian for part in (gaussian.mean, gaussian.log_scale)]
    assert {values.dtype for values in numbers} == {torch.float32}
    assert all(values.isfinite().all() for values in numbers)


def with_log_scales(training: TrainingStep, posterior: float, prior: float) -> TrainingStep:
    """The last group's log-scales, moved by the biases of the convolutions that return them.

    Not every group's: a group that reads latents of 10⁴ in its state answers with log-scales of 10², in any precision.
    """
    channels, block = training.model.config.zdim, training.model.decoder.blocks[-1]
    with torch.no_grad():
        block.prior.expand.bias[channels : 2 * channels] = prior
        block.posterior.expand.bias[channels:] = posterior
    return training


@pytest.mark.parametrize(("posterior", "prior"), [(-20.0, -20.0), (8.0, 8.0), (-20.0, 8.0), (8.0, -20.0)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_at_extreme_log_scales_has_finite_terms(precision: Precision, posterior: float, prior: float) -> None:
    """At most 8, where latents, some 10⁴, still enter the state as float16. A gradient of 10²⁰ does not fit there."""
    training = with_log_scales(minimal_training(precision, lr_target="live"), posterior, prior)
    training(0, 1.0, batches_of(grey_pixels(8), 8))
    assert int(training.finite_steps) == 1
    if precision != "fp16":
        assert training.optimiser.weights.gradients.isfinite().all()  # clipping makes NaN of an infinite element
    assert training.optimiser.weights.values.isfinite().all()


@pytest.mark.parametrize("log_scale", [-100.0, 100.0, FLOAT16_MAX])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_log_scale_beyond_the_range_costs_an_update_and_no_weight(precision: Precision, log_scale: float) -> None:
    training = with_log_scales(minimal_training(precision), log_scale, 0.0)
    before = fingerprint(training)["state"]
    training(0, 1.0, batches_of(grey_pixels(8), 8))
    assert torch.equal(fingerprint(training)["state"], before)
    assert int(training.optimiser.skipped) == 1


def step_on(training: TrainingStep, iteration: int) -> None:
    training(iteration, 1.0, batches_of(grey_pixels(8, iteration), 8))


def set_loss_scale(training: TrainingStep, scale: float, growth_tracker: int, growth_interval: int = 2000) -> None:
    scaler = training.optimiser.scaler
    factors = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": growth_interval}
    scaler.load_state_dict({"scale": scale, "_growth_tracker": growth_tracker} | factors)


def loss_scale(training: TrainingStep) -> tuple[float, int]:
    """The scale, and for how many updates it has held."""
    state = training.optimiser.scaler.state_dict()
    return state["scale"], state["_growth_tracker"]


def test_an_overflowing_step_is_skipped_halves_the_scale_and_training_goes_on() -> None:
    training = minimal_training("fp16")
    step_on(training, 0)
    before, scale = fingerprint(training), loss_scale(training)[0]
    set_loss_scale(training, 2.0**60, growth_tracker=5)
    step_on(training, 1)
    assert_same_bits(fingerprint(training), before)  # weights, average, AdamW's averages and step count
    assert loss_scale(training) == (2.0**59, 0)
    counts = (training.optimiser.skipped, training.optimiser.consecutive_skips, training.finite_steps)
    assert [int(count) for count in counts] == [1, 1, 2]  # the loss itself was finite, and counts
    set_loss_scale(training, scale, growth_tracker=0)
    step_on(training, 2)
    assert [int(count) for count in counts] == [1, 0, 3]
    assert loss_scale(training) == (scale, 1)
    assert not torch.equal(fingerprint(training)["state"], before["state"])


def test_scale_and_growth_tracker_go_on_after_a_resume(tmp_path: Path) -> None:
    """Saved after two good updates of the three that double the scale: the third, after the resume, doubles it."""
    saved = minimal_training("fp16")
    set_loss_scale(saved, 64.0, growth_tracker=0, growth_interval=3)
    for iteration in range(2):
        step_on(saved, iteration)
    assert loss_scale(saved) == (64.0, 2)
    folder = CheckpointFolder(tmp_path, keep=1, snapshot_every=0)
    snapshot = Snapshot(saved, tiny_settings(**MINIMAL), {})
    snapshot.take(2, bad_images=0)
    folder.write(snapshot)
    found = folder.newest_sound()
    assert found is not None
    resumed = minimal_training("fp16")
    assert restore(resumed, found[0], found[1]).iteration == 2
    assert loss_scale(resumed) == (64.0, 2)
    for training in (saved, resumed):
        step_on(training, 2)
        assert loss_scale(training) == (128.0, 0)
    assert_same_bits(fingerprint(saved), fingerprint(resumed))


def pooled_fashion(source: ImageSource, count: int) -> Tensor:
    """The first bundled images, 32×32 averaged to (count, 1, 8, 8)."""
    pixels = torch.from_numpy(source.read(np.arange(count))).permute(0, 3, 1, 2)
    return F.avg_pool2d(pixels.float(), 4).round().to(torch.uint8)


@pytest.mark.slow
def test_200_steps_in_bf16_end_at_float32s_bound() -> None:
    """LR on real images. The bound falls by a tenth and more, so that 1% is not what an idle run would give."""
    splits = open_splits(tiny_settings(dataset="fashion_small").data, 32, 1)
    batches = batches_of(pooled_fashion(splits.train, 400), 8)
    held_out = batches_of(pooled_fashion(splits.valid, 64), 64)
    ends: dict[str, float] = {}
    for precision in PRECISIONS[:2]:
        training = minimal_training(precision, lr=0.003, warmup_iters=10, iters=200)

        def bound(training: TrainingStep = training, precision: Precision = precision) -> float:
            with autocast(ALONE.device, precision):
                return evaluate_bound(training.model, held_out, seed=0, world=ALONE).negative_elbo

        start = bound()
        for iteration in range(200):
            training(iteration, training.objective.alpha_at(iteration, 200), [batches[iteration % len(batches)]])
        ends[precision] = bound()
        assert ends[precision] < 0.9 * start
        assert int(training.optimiser.skipped) == 0
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.01)
