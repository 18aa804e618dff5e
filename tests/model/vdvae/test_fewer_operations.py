"""Operations that were joined give the numbers of the plain ones."""

from dataclasses import replace

import pytest
import torch
from closeness import relative_error
from small_config import SMALL
from torch import Tensor

import vdvae_lr
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.model.vdvae import layers
from vdvae_lr.pictures.images import SAMPLES_NOISE
from vdvae_lr.training.step import batch_terms

EXACT = 1e-12


def test_the_bound_and_its_gradients_are_those_of_a_textbook_pass(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "benchmarks"))
    from plain_vdvae import negative_elbo

    ours = batch_terms(small_model, ObjectiveSettings(alpha_T=0), small_levels, small_noise, 0.0).total
    plain = negative_elbo(small_model, small_levels, list(small_noise.posterior))
    assert relative_error(ours, plain) <= EXACT
    names, parameters = zip(*small_model.named_parameters(), strict=True)
    pairs = zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(plain, parameters), strict=True)
    for name, (one, other) in zip(names, pairs, strict=True):
        assert relative_error(one, other) <= EXACT, name


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_those_of_a_textbook_pass(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "benchmarks"))
    from plain_vdvae import sampled_levels

    torch.manual_seed(0)
    model = VDVAE(replace(SMALL, image_channels=channels)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    noise = PassNoise(model, 3, torch.device("cpu"), prior=True)
    noise.draw_rows([noise_key(SAMPLES_NOISE, 5, number) for number in range(3)])
    plain = sampled_levels(model, 3, noise)
    assert torch.equal(plain, torch.from_numpy(vdvae_lr.sample(model, 3, seed=5)))
    assert sampled_levels(model, 2).shape == (2, 8, 8, channels)


@pytest.mark.parametrize(("images", "passes"), [(2, 2), (1, 2), (2, 1)])
def test_all_posteriors_at_once_are_those_of_every_group(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, images: int, passes: int
) -> None:
    """Also if a single image goes with every pass, or a single pass with every image."""
    noise = [numbers[:passes] for numbers in small_noise.prior]
    passed = small_model.generate(passes, noise, keep_contexts=True)
    features = small_model.encode(small_levels[:images])
    found = small_model.posteriors(passed, features)
    assert len(found) == len(small_model.latent_shapes)
    for group, posterior in enumerate(found):
        alone: DiagonalGaussian = small_model.posterior(group, passed, features)
        for one, other in ((posterior.mean, alone.mean), (posterior.log_scale, alone.log_scale)):
            assert one.shape == (2, *small_model.latent_shapes[group])
            assert relative_error(one, other) <= EXACT


def test_joined_convolutions_are_the_convolutions_side_by_side() -> None:
    made = [layers.convolution(3, 2, 3).double() for _ in range(4)]
    features = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    alone = torch.cat([layer(features) for layer in made], dim=1)
    assert relative_error(layers.joined(made)(features), alone) <= EXACT
    parts = layers.joined(made).split(2)
    assert relative_error(torch.cat([part(features) for part in parts], dim=1), alone) <= EXACT
    grouped = layers.joined(made, groups=4)(features.repeat(1, 4, 1, 1))
    assert relative_error(grouped, alone) <= EXACT
