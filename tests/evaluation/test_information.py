"""Information: known answers for a linear-Gaussian VAE and a collapsed VDVAE, and what the model's estimates are of.

The linear-Gaussian VAE: z ~ N(0, 1), x = a·z + s·ε elementwise, so q(z|x) may be the exact posterior
N(a·x/(a² + s²), s²/(a² + s²)) and I(Z;X) = D/2 · log(1 + a²/s²).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from closeness import relative_error
from latent_groups import groups_of
from measured_pixels import measuring_of, numbers_of, task_of
from torch import Tensor
from torch.distributions import Normal

from vdvae_lr.evaluation.information import information_nats, measure_information_from_samples
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import Given, LatentPass, Latents
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

GAIN, NOISE_SCALE, ELEMENTS, DRAWS = 0.9, 0.4, 6, 20_000
TRUE_INFORMATION = ELEMENTS / 2 * math.log(1 + GAIN**2 / NOISE_SCALE**2)


@dataclass(frozen=True)
class LinearLikelihood:
    """p(x|z) = N(a·z, s²); its draws come from elsewhere."""

    latent: Tensor

    def log_prob(self, image: Tensor) -> Tensor:
        scale = torch.full_like(image, math.log(NOISE_SCALE))
        return DiagonalGaussian(GAIN * self.latent, scale).log_prob(image)

    def mean(self) -> Tensor:
        return GAIN * self.latent

    def sample(self, noise: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError


def linear_pass(shift: float = 0.0) -> tuple[SimpleNamespace, LatentPass, Tensor]:
    """The linear-Gaussian VAE's encoder, one pass, and an image sampled from it; `shift` is the error of q's mean."""
    generator = torch.Generator().manual_seed(0)
    shape = (DRAWS, 1, 2, ELEMENTS // 2)
    latent, noise = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    total = GAIN**2 + NOISE_SCALE**2
    log_scale = torch.full_like(latent, 0.5 * math.log(NOISE_SCALE**2 / total))

    def reencode(latents: Latents, image: Tensor) -> list[DiagonalGaussian]:
        return [DiagonalGaussian(GAIN / total * image + shift, log_scale)]

    prior = DiagonalGaussian(torch.zeros_like(latent), torch.zeros_like(latent))
    passed = LatentPass((latent,), (prior,), (), (), LinearLikelihood(latent))
    return SimpleNamespace(reencode=reencode), passed, GAIN * latent + NOISE_SCALE * noise


def test_exact_posterior_gives_the_pointwise_information() -> None:
    """log q(z|x) − log p(z) = log p(x|z) − log p(x) for every single draw, when q is exact (Bayes)."""
    model, passed, image = linear_pass()
    marginal = DiagonalGaussian(
        torch.zeros_like(image), torch.full_like(image, 0.5 * math.log(GAIN**2 + NOISE_SCALE**2))
    )
    expected = (passed.likelihood.log_prob(image) - marginal.log_prob(image)).flatten(1).sum(1)
    assert relative_error(information_nats(model, passed, image), expected) < 1e-12


def test_average_is_the_mutual_information() -> None:
    found = information_nats(*linear_pass())
    assert abs(found.mean().item() - TRUE_INFORMATION) < 4 * found.std().item() / math.sqrt(DRAWS)


def test_wrong_posterior_loses_its_divergence_from_the_true_one() -> None:
    """E[log q − log p] = I − E[KL(p(z|x) ‖ q)]: a lower bound, below by Σ shift²/2σ² here."""
    shift = 0.1
    found = information_nats(*linear_pass(shift))
    loss = ELEMENTS * shift**2 * (GAIN**2 + NOISE_SCALE**2) / (2 * NOISE_SCALE**2)
    assert abs(found.mean().item() - (TRUE_INFORMATION - loss)) < 4 * found.std().item() / math.sqrt(DRAWS)
    assert loss > 8 * found.std().item() / math.sqrt(DRAWS)  # else the test could not tell


def test_samples_are_rounded_to_pixel_levels(
    small_model: VDVAE, pixels: Tensor, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    reencode = small_model.reencode

    def remember(passed: LatentPass, image: Tensor) -> tuple[DiagonalGaussian, ...]:
        seen.append((image.clone(), groups_of(passed)[0].posterior))
        return reencode(passed, image)

    monkeypatch.setattr(small_model, "reencode", remember)
    measure_information_from_samples(task_of(small_model, measuring_of(pixels, world, batch=7)))
    ((image, posterior),) = seen
    levels = (image + 1) * 127.5
    assert relative_error(levels, levels.round()) < 1e-12
    assert levels.unique().numel() > 50  # samples, not a constant
    assert posterior is None  # from the prior


@pytest.fixture(params=[3, 1], ids=["colour", "grey"])
def two_models(request: pytest.FixtureRequest, small_model: VDVAE) -> tuple[VDVAE, VDVAE]:
    """A model and one with other weights."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = VDVAE(replace(small_model.config, image_channels=request.param)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        found.append(model)
    return found[0], found[1]


@torch.inference_mode()
def group_information(model: VDVAE, encoder: VDVAE, seed: int) -> np.ndarray:
    """Eq. 5's summand by sample and group, the encoder's posteriors by a full pass with all latents given: (7, 5)."""
    noise = PassNoise(model, 7, torch.device("cpu"), prior=True)
    noise.draw_rows([noise_key("information", seed, number) for number in range(7)])
    groups = model.generate(7, noise.prior)
    levels = ((groups.likelihood.sample(noise.image) + 1) * 127.5).round()
    second = encoder.top_down([Given(group.latent) for group in groups_of(groups)], 7, encoder.encode(levels))
    values = []
    for group, read in zip(groups_of(groups), groups_of(second), strict=True):
        posterior = Normal(read.posterior.mean, read.posterior.log_scale.exp())
        prior = Normal(group.prior.mean, group.prior.log_scale.exp())
        values.append((posterior.log_prob(group.latent) - prior.log_prob(group.latent)).flatten(1).sum(1))
    return torch.stack(values, 1).numpy()


def test_by_group_as_either_encoder_reads_it(two_models: tuple[VDVAE, VDVAE], pixels: Tensor, world: World) -> None:
    model, before = two_models
    measuring = measuring_of(pixels, world, seed=3)
    found = measure_information_from_samples(task_of(model, measuring, before)).quantities
    assert [quantity.key for quantity in found] == ["information_from_samples", "information_from_samples_before"]
    for quantity, encoder in zip(found, two_models, strict=True):
        values = group_information(model, encoder, 3) / model.dimensions
        np.testing.assert_allclose([group.value for group in quantity.groups], values.mean(0), rtol=1e-8)
        by_resolution = [values[:, 0], values[:, 1:3].sum(1), values[:, 3:].sum(1), values.sum(1)]
        for level, measured in zip(by_resolution, [*quantity.resolutions.values(), quantity.total], strict=True):
            assert measured.value == pytest.approx(level.mean(), rel=1e-8)
            assert measured.standard_error == pytest.approx(level.std(ddof=1) / math.sqrt(7), rel=1e-8)
            assert measured.images == 7


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (1, 32), (2, 2), (3, 4)])
def test_by_group_batches_and_processes_do_not_matter(
    two_models: tuple[VDVAE, VDVAE],
    pixels: Tensor,
    world: World,
    in_worlds: Callable[..., list[list[Quantity]]],
    size: int,
    batch: int,
) -> None:
    model, before = two_models

    def measured(one: World, batch: int = 3) -> Sequence[Quantity]:
        return measure_information_from_samples(
            task_of(model, measuring_of(pixels, one, batch=batch), before)
        ).quantities

    expected = numbers_of(measured(world))
    for found in in_worlds(size, lambda one: measured(one, batch)):
        for key, numbers in numbers_of(found).items():
            np.testing.assert_allclose(numbers, expected[key], rtol=1e-8)


def test_collapsed_model_has_none_in_any_group(collapsed_model: VDVAE, pixels: Tensor, world: World) -> None:
    (found,) = measure_information_from_samples(task_of(collapsed_model, measuring_of(pixels, world))).quantities
    assert [group.value for group in (found.total, *found.groups)] == [0.0] * 6
